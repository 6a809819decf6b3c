package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// Stream is one call, and what has been received.
type Stream struct {
	task       *Task
	connection *grpc.ClientConn
	request    []byte

	mutex    sync.Mutex
	sent     float64
	first    float64
	ended    float64
	bytes    int
	messages int
	code     string
	reason   string
	delays   Histogram
	stamps   Stamps
	tail     []byte
}

// run makes the call and reads what comes, until the end or what the task calls the end. answered is called once.
func (s *Stream) run(ctx context.Context, begun time.Time, answered func()) {
	var once sync.Once
	defer once.Do(answered)
	err := s.call(ctx, begun, func() { once.Do(answered) })
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.ended = time.Since(begun).Seconds()
	s.code = "OK"
	if err != nil && !errors.Is(err, io.EOF) {
		s.code = status.Code(err).String()
		s.reason = status.Convert(err).Message()
		if s.code == codes.Canceled.String() && ctx.Err() != nil {
			s.code = "stopped"
			s.ended = 0
		}
	}
}

func (s *Stream) call(ctx context.Context, begun time.Time, answered func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mutex.Lock()
	s.sent = time.Since(begun).Seconds()
	s.mutex.Unlock()
	call, err := s.connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, s.task.Method)
	if err != nil {
		return err
	}
	if err := call.SendMsg(s.request); err != nil {
		return err
	}
	if err := call.CloseSend(); err != nil {
		return err
	}
	if s.task.Stalled {
		_, err := call.Header()
		answered()
		if err == nil {
			<-ctx.Done()
		}
		return ctx.Err()
	}
	var message []byte
	for {
		if err := call.RecvMsg(&message); err != nil {
			return err
		}
		if s.received(message, begun) {
			return nil
		}
		answered()
	}
}

// received takes down a message, and tells whether it was the last that is wanted.
func (s *Stream) received(message []byte, begun time.Time) bool {
	now := time.Now()
	content := field(message, s.task.Field)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.messages == 0 {
		s.first = now.Sub(begun).Seconds()
	}
	s.messages++
	s.bytes += len(content)
	if s.task.Stamped {
		s.stamps.feed(content, now.UnixNano(), &s.delays)
	}
	if until := s.task.Until; until != "" {
		s.tail = append(s.tail, content[max(0, len(content)-len(until)):]...)
		s.tail = s.tail[max(0, len(s.tail)-len(until)):]
		return string(s.tail) == until
	}
	return false
}

// codec passes bytes through.
type codec struct{}

func (codec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(value.([]byte))}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, value any) error {
	message := value.(*[]byte)
	*message = (*message)[:0]
	for _, buffer := range data {
		*message = append(*message, buffer.ReadOnlyData()...)
	}
	return nil
}

func (codec) Name() string { return "proto" }
