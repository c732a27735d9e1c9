package main

import (
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type lockKey struct {
	bucket string
	token  uint64
}

// Lock is a lock that this client holds until Release, or until Lost is closed.
type Lock struct {
	Bucket, Name string
	Token        uint64 // it belongs into the checks of transactions
	client       *Client
	lost         chan struct{}

	mutex   sync.Mutex
	isOver  bool
	err     error
	renewal *time.Timer // before half of the time is over
	expiry  *time.Timer
}

type lockAnswer struct {
	Token    uint64  `msgpack:"token"`
	ValidFor float64 `msgpack:"valid_for"`
}

// A lock counts its time also while the machine is suspended.
func bootTime() time.Duration {
	return time.Duration(clockMicroseconds(clockBoottime)) * time.Microsecond
}

// Acquire acquires a lock, and waits for it for this long at most.
func (c *Client) Acquire(bucket, name string, wait time.Duration, value string) (*Lock, error) {
	for end := bootTime() + wait; ; time.Sleep(100 * time.Millisecond) {
		left := end - bootTime()
		if left < 0 {
			left = 0
		}
		var lock *Lock
		options := Options{"timeout": c.timeout.Seconds(), "wait": left.Seconds(), "value": value}
		err := c.do(&call{method: "lock.acquire", params: []any{bucket, name}, options: options,
			accept: func(raw msgpack.RawMessage) (err error) {
				lock, err = c.newLock(bucket, name, raw) // before the next message, which may be its lock.lost
				return err
			}})
		if err == nil {
			if _, err = lock.Check(); err == nil { // the ValidFor of the answer counts from before the wait
				return lock, nil
			}
			lock.Release() // if the session holds it
		}
		// A daemon that shuts down keeps neither the calls that wait nor the locks.
		if code := AsError(err).Code; (code != "unavailable" && code != "not_held") || left == 0 || c.isClosed() {
			return nil, err
		}
	}
}

func (c *Client) newLock(bucket, name string, raw msgpack.RawMessage) (*Lock, error) {
	var answer lockAnswer
	if err := msgpack.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	lock := &Lock{Bucket: bucket, Name: name, Token: answer.Token, client: c, lost: make(chan struct{})}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.locks[lockKey{bucket, answer.Token}] = lock
	return lock, nil
}

func (c *Client) receiveLockLost(params msgpack.RawMessage) error {
	var lost struct {
		_msgpack struct{} `msgpack:",as_array"`
		Bucket   string
		Name     string
		Token    uint64
		Error    *Error
	}
	if err := msgpack.Unmarshal(params, &lost); err != nil {
		return err
	}
	c.mutex.Lock()
	lock := c.locks[lockKey{lost.Bucket, lost.Token}]
	c.mutex.Unlock()
	if lock != nil {
		lock.lose(lost.Error)
	}
	return nil
}

// Lost is closed when the lock is lost. Err tells why.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

func (l *Lock) Err() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.err
}

// Check asks the daemon. It returns for how long the lock is valid, or an error if it is lost.
func (l *Lock) Check() (time.Duration, error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	begin := bootTime() // ValidFor counts from before the call
	var answer lockAnswer
	if err := l.client.Call("lock.check", []any{l.Bucket, l.Name, l.Token}, nil, &answer); err != nil {
		if AsError(err).Code == "not_held" {
			l.lose(err)
		}
		return 0, err
	}
	left := time.Duration(answer.ValidFor*float64(time.Second)) - (bootTime() - begin)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.isOver {
		return 0, l.err
	}
	l.stopTimers()
	l.renewal = time.AfterFunc(left/2, func() { l.Check() })
	l.expiry = time.AfterFunc(left, func() { l.lose(failure("unavailable", "kvstored does not answer", "none")) })
	return left, nil
}

func (l *Lock) Release() error {
	if !l.end(nil) {
		return l.Err()
	}
	var result any
	return l.client.Call("lock.release", []any{l.Bucket, l.Name, l.Token}, nil, &result)
}

// lose is called when lock.lost has arrived, the session has ended, or the time is over.
func (l *Lock) lose(err error) {
	if l.end(err) {
		close(l.lost)
	}
}

// end returns false if the lock has ended before.
func (l *Lock) end(err error) bool {
	l.client.mutex.Lock()
	delete(l.client.locks, lockKey{l.Bucket, l.Token})
	l.client.mutex.Unlock()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.isOver {
		return false
	}
	l.isOver, l.err = true, err
	l.stopTimers()
	return true
}

func (l *Lock) stopTimers() {
	if l.renewal != nil {
		l.renewal.Stop()
		l.expiry.Stop()
	}
}
