package main

import (
	"fmt"
	"math"
	"testing"
)

func TestFieldIsFoundBehindOthers(t *testing.T) {
	// 1: {7: 300, 6: "found"}, behind 2: 5 as fixed32 and 3: "x"
	message := []byte("\x15\x05\x00\x00\x00\x1a\x01x\x0a\x0a\x38\xac\x02\x32\x05found")
	if got := string(field(message, []int{1, 6})); got != "found" {
		t.Errorf("got %q", got)
	}
	if got := field(message, []int{1, 5}); got != nil {
		t.Errorf("got %q for a field that is not there", got)
	}
}

func TestStampsAreFoundUnderAnyChunking(t *testing.T) {
	const now = 5_000_000_000
	text := "no stamp\n@4000000000 one second\nanother\n@3000000000\n@4999999999 not yet a line"
	for size := 1; size <= len(text); size++ {
		var stamps Stamps
		var delays Histogram
		for start := 0; start < len(text); start += size {
			stamps.feed([]byte(text[start:min(start+size, len(text))]), now, &delays)
		}
		if got := delays.summary(); got.Count != 2 || got.Max != 2 {
			t.Errorf("in chunks of %d: %+v", size, got)
		}
	}
}

func TestQuantilesAreNearlyRight(t *testing.T) {
	for _, unit := range []int64{1, 1_000, 1_000_000} {
		t.Run(fmt.Sprint(unit), func(t *testing.T) {
			var delays Histogram
			for number := int64(1); number <= 1000; number++ {
				delays.record(number * unit)
			}
			got := delays.summary()
			for share, found := range map[float64]float64{0.5: got.P50, 0.99: got.P99} {
				exact := share * 1000 * float64(unit) / 1e9
				if math.Abs(found-exact) > exact/parts {
					t.Errorf("%v instead of %v", found, exact)
				}
			}
		})
	}
}
