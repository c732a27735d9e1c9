// A client of kvstored for Go 1.18 and later: one session, which reconnects, with any number of calls in flight.
// docs/clients.md explains it. The methods are in kvstored.go, watches in watch.go, locks in lock.go.
package main

import (
	"net"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/vmihailenco/msgpack/v5"
)

// These methods can be repeated on the next session, because they change nothing or hold nothing that is lost with the
// session. Writes can be repeated because they have an id.
var repeatable = map[string]bool{"kv.get": true, "kv.get_json": true, "kv.history": true, "kv.keys": true,
	"kv.entries": true, "bulk.get": true, "bucket.info": true, "bucket.list": true, "health.check": true,
	"lock.acquire": true, "lock.check": true}

type call struct {
	id        uint32
	sequence  uint64
	method    string
	params    []any
	options   Options
	message   []byte
	firstSent uint64                                // microseconds of CLOCK_MONOTONIC; 0: it was never sent
	isSent    bool                                  // on the present session
	accept    func(result msgpack.RawMessage) error // called before the next message is read
	done      chan error
}

type Client struct {
	path    string
	timeout time.Duration

	mutex   sync.Mutex
	changed *sync.Cond // unsent or conn has changed
	conn    net.Conn   // nil: not connected
	closed  bool
	calls   map[uint32]*call // without an answer
	unsent  []*call          // those of them that wait for the sender, in their order
	last    uint64
	locks   map[lockKey]*Lock // see lock.go
}

// NewClient returns a client, which connects by itself. An empty path is $KVSTORED_SOCKET, or the default.
func NewClient(path string, timeout time.Duration) *Client {
	c := &Client{path: socketPath(path), timeout: timeout, calls: map[uint32]*call{}, locks: map[lockKey]*Lock{}}
	c.changed = sync.NewCond(&c.mutex)
	go c.run()
	return c
}

func socketPath(path string) string {
	if path == "" {
		path = os.Getenv("KVSTORED_SOCKET")
	}
	if path == "" {
		path = "/run/kvstored/kvstored.sock"
	}
	return path
}

func (c *Client) Close() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.closed = true
	if c.conn != nil {
		c.conn.Close()
	}
}

func (c *Client) isClosed() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.closed
}

// do makes a call and waits for its answer.
func (c *Client) do(call *call) error {
	call.done = make(chan error, 1)
	patience := c.patience(call.options) // before another goroutine has the options
	if err := c.enqueue(call); err != nil {
		return err
	}
	var expired <-chan time.Time // never, of a lock: one that is acquired late must be seen
	if call.method != "lock.acquire" {
		timer := time.NewTimer(patience) // without an answer until then, the daemon is away or hangs
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case err := <-call.done:
		return err
	case <-expired:
		if c.remove(call.id) == nil {
			return <-call.done // the answer has just arrived
		}
		return failure("deadline_exceeded", "kvstored does not answer", "unknown")
	}
}

// patience returns how long to wait for an answer, which the daemon sends within the timeout.
func (c *Client) patience(options Options) time.Duration {
	seconds := c.timeout.Seconds()
	switch timeout := options["timeout"].(type) {
	case float64:
		seconds = timeout
	case int:
		seconds = float64(timeout)
	}
	return time.Duration((seconds + 1) * float64(time.Second))
}

func (c *Client) enqueue(call *call) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return failure("unavailable", "the client is closed", "none")
	}
	for c.last++; c.calls[uint32(c.last)] != nil; c.last++ { // no two calls in flight have the same id
	}
	call.id, call.sequence = uint32(c.last), c.last
	if err := call.encode(); err != nil {
		return err
	}
	c.calls[call.id] = call
	c.unsent = append(c.unsent, call)
	c.changed.Signal()
	return nil
}

func (call *call) encode() (err error) {
	params := append(append([]any{}, call.params...), call.options)
	call.message, err = msgpack.Marshal([]any{0, call.id, call.method, params})
	return err
}

// remove takes a call out of the table. It returns nil if another goroutine has done so.
func (c *Client) remove(id uint32) *call {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	call := c.calls[id]
	delete(c.calls, id)
	return call
}

// run connects and receives until the session ends, again and again until the client is closed.
func (c *Client) run() {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		reason := failure("unavailable", "the session has ended", "unknown")
		if conn, err := net.Dial("unix", c.path); err == nil {
			c.setConn(conn)
			go c.send(conn)
			decoder := msgpack.NewDecoder(conn)
			for err == nil {
				if err = c.receive(decoder, &reason); err == nil {
					pause = 10 * time.Millisecond
				}
			}
			conn.Close()
			c.setConn(nil)
		}
		if c.lose(reason) {
			return
		}
		time.Sleep(pause)
	}
}

func (c *Client) setConn(conn net.Conn) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.conn = conn
	if conn != nil && c.closed {
		conn.Close()
	}
	c.changed.Broadcast()
}

// send writes the calls in their order. It has a goroutine of its own, so that the client reads while it writes.
func (c *Client) send(conn net.Conn) {
	for {
		c.mutex.Lock()
		for len(c.unsent) == 0 && c.conn == conn {
			c.changed.Wait()
		}
		if c.conn != conn {
			c.mutex.Unlock()
			return
		}
		var messages net.Buffers
		for _, call := range c.unsent {
			if call.firstSent != 0 && call.options["id"] != nil { // a repetition
				call.options["first_sent"] = call.firstSent
				_ = call.encode() // it was possible before
			}
			if call.firstSent == 0 {
				call.firstSent = clockMicroseconds(clockMonotonic)
			}
			call.isSent = true
			messages = append(messages, call.message)
		}
		c.unsent = nil
		c.mutex.Unlock()
		if _, err := messages.WriteTo(conn); err != nil {
			return // the receiver gets an error, too
		}
	}
}

// receive reads one message. The reason becomes that of the daemon if it ends the session.
func (c *Client) receive(decoder *msgpack.Decoder, reason **Error) error {
	var kind int
	if _, err := decoder.DecodeArrayLen(); err != nil {
		return err
	}
	if err := decoder.Decode(&kind); err != nil {
		return err
	}
	if kind == 2 {
		var method string
		var params msgpack.RawMessage
		if err := decoder.DecodeMulti(&method, &params); err != nil || method != "lock.lost" {
			return err
		}
		return c.receiveLockLost(params)
	}
	var id *uint32
	var refusal *Error
	if err := decoder.DecodeMulti(&id, &refusal); err != nil {
		return err
	}
	result, err := decoder.DecodeRaw() // not DecodeMulti: it makes an empty RawMessage of nil
	if err != nil {
		return err
	}
	if id == nil {
		*reason = refusal // about the session, which ends
	} else if call := c.remove(*id); call != nil && refusal != nil {
		call.done <- refusal
	} else if call != nil { // it has not expired
		call.done <- call.accept(result)
	}
	return nil
}

// lose keeps the calls that the next session can repeat, and fails the others. It returns whether the client is closed.
func (c *Client) lose(reason *Error) bool {
	isDismissed := reason.Code == "unavailable" && reason.Outcome == "none" // the calls were not executed
	c.mutex.Lock()
	c.unsent = nil
	for id, call := range c.calls {
		mayRepeat := !call.isSent || isDismissed || call.options["id"] != nil || repeatable[call.method]
		call.isSent = false
		if c.closed || !mayRepeat {
			delete(c.calls, id)
			call.done <- reason
		} else {
			c.unsent = append(c.unsent, call)
		}
	}
	sort.Slice(c.unsent, func(i, j int) bool { return c.unsent[i].sequence < c.unsent[j].sequence })
	closed, locks := c.closed, c.locks
	c.locks = map[lockKey]*Lock{}
	c.mutex.Unlock()
	for _, lock := range locks {
		lock.lose(reason)
	}
	return closed
}

// The time package does not tell the value of its clock.
const (
	clockMonotonic = 1
	clockBoottime  = 7 // it also runs while the machine is suspended
)

func clockMicroseconds(clock uintptr) uint64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&now)), 0)
	return uint64(now.Nano() / 1000)
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
