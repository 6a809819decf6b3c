package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

// field is the contents of the field at path, e.g. 1, 6 for the sixth of the first; nil if there is none.
func field(message []byte, path []int) []byte {
	for _, number := range path {
		message = subField(message, uint64(number))
	}
	return message
}

func subField(message []byte, number uint64) []byte {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return nil
		}
		message = message[n:]
		length := 0
		switch tag & 7 {
		case 0:
			_, length = binary.Uvarint(message)
		case 1:
			length = 8
		case 2:
			size, n := binary.Uvarint(message)
			message = message[n:]
			length = int(size)
			if tag>>3 == number {
				return message[:length]
			}
		case 5:
			length = 4
		}
		message = message[length:]
	}
	return nil
}

// Stamps finds the lines of a text that begin with "@" and a time in nanoseconds, under any chunking.
type Stamps struct {
	begun []byte
}

// feed takes down how long ago the stamps of the lines that end in data were.
func (s *Stamps) feed(data []byte, now int64, delays *Histogram) {
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			s.begun = append(s.begun, data...)
			return
		}
		line := data[:end]
		if len(s.begun) > 0 {
			s.begun = append(s.begun, line...)
			line = s.begun
		}
		if len(line) > 0 && line[0] == '@' {
			delays.record(now - number(line[1:]))
		}
		s.begun = s.begun[:0]
		data = data[end+1:]
	}
}

func number(text []byte) int64 {
	var value int64
	for _, digit := range text {
		if digit < '0' || digit > '9' {
			break
		}
		value = value*10 + int64(digit-'0')
	}
	return value
}

const (
	parts     = 32 // of each power of two: 3 % of error
	partsBits = 5
)

// Histogram counts durations in nanoseconds. The zero value is empty.
type Histogram struct {
	counts  []uint64
	largest int64
}

func (h *Histogram) record(duration int64) {
	if h.counts == nil {
		h.counts = make([]uint64, 64*parts)
	}
	duration = max(duration, 0)
	h.counts[bucket(duration)]++
	h.largest = max(h.largest, duration)
}

func (h *Histogram) add(other *Histogram) {
	if h.counts == nil {
		h.counts = make([]uint64, 64*parts)
	}
	for i, count := range other.counts {
		h.counts[i] += count
	}
	h.largest = max(h.largest, other.largest)
}

func bucket(duration int64) int {
	size := bits.Len64(uint64(duration))
	if size <= partsBits {
		return int(duration)
	}
	shift := size - partsBits - 1
	return (shift+1)*parts + int(duration>>shift) - parts
}

func middle(bucket int) float64 {
	if bucket < parts {
		return float64(bucket)
	}
	shift := bucket/parts - 1
	return (float64(bucket%parts+parts) + 0.5) * math.Pow(2, float64(shift))
}

// Summary is what is told of a histogram, in seconds.
type Summary struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func (h *Histogram) summary() Summary {
	var all uint64
	for _, count := range h.counts {
		all += count
	}
	return Summary{Count: all, P50: h.quantile(0.5, all), P99: h.quantile(0.99, all), Max: float64(h.largest) / 1e9}
}

func (h *Histogram) quantile(share float64, all uint64) float64 {
	var seen uint64
	for i, count := range h.counts {
		seen += count
		if count > 0 && float64(seen) >= share*float64(all) {
			return middle(i) / 1e9
		}
	}
	return 0
}
