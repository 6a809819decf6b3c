// Load opens gRPC streams, reads them as fast as they come, and tells how long everything took.
//
// It knows no messages: requests are given as bytes, and of what is received it looks at one field only. What to do
// comes as one line of JSON on the standard input; any further line, or its end, stops it. It answers with lines of
// JSON: {"event": "ready"} when every stream has been answered for the first time, and a report in the end.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	largestMessage   = 1 << 30
	streamWindow     = 1 << 20
	connectionWindow = 16 << 20
	readBuffer       = 256 << 10
)

// Task is what to do; see tests/bench/loading.py, which writes it.
type Task struct {
	Target      string   `json:"target"`
	Method      string   `json:"method"`
	Requests    [][]byte `json:"requests"`
	Copies      int      `json:"copies"`
	Connections int      `json:"connections"`
	Sequential  bool     `json:"sequential"`
	Stalled     bool     `json:"stalled"`
	Field       []int    `json:"field"`
	Stamped     bool     `json:"stamped"`
	Until       string   `json:"until"`
	Wanted      int      `json:"wanted"`
}

// Report is what has happened. Times are seconds since Begun.
type Report struct {
	Event    string         `json:"event"`
	Begun    float64        `json:"begun"`
	Sent     []float64      `json:"sent"`
	First    []float64      `json:"first"`
	Ended    []float64      `json:"ended"`
	Bytes    []int          `json:"bytes"`
	Codes    map[string]int `json:"codes"`
	Reasons  []string       `json:"reasons"`
	Messages int            `json:"messages"`
	Delays   Summary        `json:"delays"`
	CPU      float64        `json:"cpu"`
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		fail(err)
	}
	var task Task
	if err := json.Unmarshal(line, &task); err != nil {
		fail(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = lines.ReadBytes('\n')
		stop()
	}()
	report, err := run(ctx, task)
	if err != nil {
		fail(err)
	}
	tell(report)
}

func run(ctx context.Context, task Task) (*Report, error) {
	connections, err := connect(ctx, task)
	if err != nil {
		return nil, err
	}
	streams := make([]*Stream, 0, len(task.Requests)*task.Copies)
	for _, request := range task.Requests {
		for range task.Copies {
			connection := connections[len(streams)%len(connections)]
			streams = append(streams, &Stream{task: &task, connection: connection, request: request})
		}
	}
	before, begun := processorTime(), time.Now()
	done := start(ctx, task, streams, begun)
	select {
	case <-done:
	case <-ctx.Done():
		// They are being stopped; only what has been received counts.
		time.Sleep(50 * time.Millisecond)
	}
	return reportOf(streams, begun, processorTime()-before), nil
}

// start runs streams, and tells by the channel that as many as wanted have ended.
func start(ctx context.Context, task Task, streams []*Stream, begun time.Time) <-chan struct{} {
	var answered sync.WaitGroup
	answered.Add(len(streams))
	wanted := task.Wanted
	if wanted == 0 {
		wanted = len(streams)
	}
	ended := make(chan struct{}, len(streams))
	runOne := func(stream *Stream) {
		stream.run(ctx, begun, answered.Done)
		ended <- struct{}{}
	}
	if task.Sequential {
		go func() {
			for _, stream := range streams {
				runOne(stream)
			}
		}()
	} else {
		for _, stream := range streams {
			go runOne(stream)
		}
	}
	go func() {
		answered.Wait()
		tell(map[string]any{"event": "ready", "at": seconds(time.Now())})
	}()
	done := make(chan struct{})
	go func() {
		for range wanted {
			<-ended
		}
		close(done)
	}()
	return done
}

func connect(ctx context.Context, task Task) ([]*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(largestMessage)),
	}
	if !task.Stalled {
		// Who reads fast need not measure how much may be on the way, and is to cost little.
		options = append(
			options,
			grpc.WithInitialWindowSize(streamWindow),
			grpc.WithInitialConnWindowSize(connectionWindow),
			grpc.WithReadBufferSize(readBuffer),
		)
	}
	connections := make([]*grpc.ClientConn, task.Connections)
	for i := range connections {
		connection, err := grpc.NewClient("passthrough:///"+task.Target, options...)
		if err != nil {
			return nil, err
		}
		connection.Connect()
		for state := connection.GetState(); state != connectivity.Ready; state = connection.GetState() {
			if !connection.WaitForStateChange(ctx, state) {
				return nil, fmt.Errorf("no connection to %s", task.Target)
			}
		}
		connections[i] = connection
	}
	return connections, nil
}

func reportOf(streams []*Stream, begun time.Time, cpu float64) *Report {
	report := &Report{Event: "done", Begun: seconds(begun), Codes: map[string]int{}, Reasons: []string{}, CPU: cpu}
	var delays Histogram
	for _, stream := range streams {
		stream.mutex.Lock()
		report.Sent = append(report.Sent, stream.sent)
		report.First = append(report.First, stream.first)
		report.Ended = append(report.Ended, stream.ended)
		report.Bytes = append(report.Bytes, stream.bytes)
		report.Codes[stream.code]++
		if stream.reason != "" && stream.code != "stopped" {
			report.Reasons = append(report.Reasons, stream.reason)
		}
		report.Messages += stream.messages
		delays.add(&stream.delays)
		stream.mutex.Unlock()
	}
	report.Delays = delays.summary()
	return report
}

func processorTime() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func seconds(moment time.Time) float64 {
	return float64(moment.UnixNano()) / 1e9
}

var output sync.Mutex

func tell(value any) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(value)
}

func fail(err error) {
	tell(map[string]string{"event": "failed", "reason": err.Error()})
	os.Exit(1)
}
