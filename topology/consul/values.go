package consul

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// A value as it stands at its key begins with one byte:
//
//	0  the value itself follows
//	1  the value, gzipped, follows
//	2  a head follows, and the gzipped value stands in pieces at other keys:
//
//	+---+------------------+-----------------+------------------+
//	| 2 | version, 8 bytes | pieces, 4 bytes | SHA-256, 32 bytes|
//	+---+------------------+-----------------+------------------+
//
// Piece i of a version is at chunks/KIND/ID/VERSION/i, version in hex, i in eight
// digits. Pieces are written first; the transaction that writes the head checks
// that they still stand as they were written. The sum is that of all pieces.
const (
	formPlain   = 0
	formGzip    = 1
	formPieces  = 2
	versionSize = 8
	headSize    = 1 + versionSize + 4 + sha256.Size
)

const (
	// compressFrom is the size from which values are compressed.
	compressFrom = 1 << 10
	// pieceSize bounds a value at one key: a transaction of Consul holds 512 KiB,
	// and its values travel as base64.
	pieceSize = 256 << 10
	// maxPieces leaves room for the guard and the head in one transaction.
	maxPieces = maxOps - 2
	// MaxValue bounds what is read and written, before compression.
	MaxValue = 64 << 20
)

// errTorn says that a value was replaced while it was read.
var errTorn = errors.New("the value was replaced while it was read")

// errFormat says that a value cannot be read, now or later.
var errFormat = errors.New("not a value that this version reads")

// ErrTooLarge says that a value is longer than [MaxValue], or does not compress enough.
var ErrTooLarge = errors.New("the value is too large")

// pack returns what to write at the key, and the pieces to write before it.
func pack(value []byte) (head []byte, pieces [][]byte, version string, err error) {
	if len(value) > MaxValue {
		return nil, nil, "", fmt.Errorf("%w: %d bytes, %d at most", ErrTooLarge, len(value), MaxValue)
	}
	if len(value) < compressFrom {
		return append([]byte{formPlain}, value...), nil, "", nil
	}
	var b bytes.Buffer
	b.WriteByte(formGzip)
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed) // what does not compress shall not cost much
	if err != nil {
		return nil, nil, "", err
	}
	if _, err := w.Write(value); err != nil {
		return nil, nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	if b.Len() <= pieceSize {
		return b.Bytes(), nil, "", nil
	}
	packed := b.Bytes()[1:]
	pieces = slices.Collect(slices.Chunk(packed, pieceSize))
	if len(pieces) > maxPieces {
		return nil, nil, "", fmt.Errorf("%w: %d bytes are %d compressed, %d at most", ErrTooLarge, len(value), len(packed), maxPieces*pieceSize)
	}
	head = make([]byte, 1+versionSize, headSize)
	head[0] = formPieces
	_, _ = rand.Read(head[1:]) // never fails, says crypto/rand
	version = hex.EncodeToString(head[1:])
	head = binary.BigEndian.AppendUint32(head, uint32(len(pieces)))
	sum := sha256.Sum256(packed)
	return append(head, sum[:]...), pieces, version, nil
}

// unpack returns the value that a key holds; pieces returns those of a version.
func unpack(at []byte, pieces func(version string) ([][]byte, error)) ([]byte, error) {
	if len(at) == 0 {
		return nil, fmt.Errorf("is empty: %w", errFormat)
	}
	switch at[0] {
	case formPlain:
		return at[1:], nil
	case formGzip:
		return inflate(at[1:])
	case formPieces:
		if len(at) != headSize {
			return nil, fmt.Errorf("has a head of %d bytes: %w", len(at), errFormat)
		}
		found, err := pieces(hex.EncodeToString(at[1 : 1+versionSize]))
		if err != nil {
			return nil, err
		}
		packed := bytes.Join(found, nil)
		if uint32(len(found)) != binary.BigEndian.Uint32(at[1+versionSize:]) || sha256.Sum256(packed) != [sha256.Size]byte(at[headSize-sha256.Size:]) {
			return nil, errTorn
		}
		return inflate(packed)
	}
	return nil, fmt.Errorf("has form %d: %w", at[0], errFormat)
}

func inflate(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errFormat)
	}
	value, err := io.ReadAll(io.LimitReader(r, MaxValue+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errFormat)
	}
	if len(value) > MaxValue {
		return nil, fmt.Errorf("inflates to more than %d bytes: %w", MaxValue, errFormat)
	}
	return value, nil
}

// versionOf returns the version of the pieces that a key refers to, empty if none.
func versionOf(at []byte) string {
	if len(at) != headSize || at[0] != formPieces {
		return ""
	}
	return hex.EncodeToString(at[1 : 1+versionSize])
}

// put writes a value of a kind for a life: held by session, or with a plain set
// if that is empty. guard, if any, is checked in every transaction.
func (c *Client) put(ctx context.Context, kind, id, session string, value []byte, guard ...op) error {
	head, pieces, version, err := pack(value)
	if err != nil {
		return err
	}
	ops := slices.Clone(guard)
	keys := make([]string, 0, len(pieces))
	for i, piece := range pieces {
		key := fmt.Sprintf("%s%s/%08d", c.chunkPrefix(kind, id), version, i)
		keys = append(keys, key)
		written, err := c.backend.apply(ctx, append(slices.Clone(guard), op{verb: verbSet, key: key, value: piece}))
		if err != nil {
			return err
		}
		ops = append(ops, op{verb: verbCheckIndex, key: key, index: written[key]})
	}
	last := op{verb: verbSet, key: c.key(kind, id), value: head}
	if session != "" {
		last.verb, last.session = verbLock, session
	}
	_, err = c.backend.apply(ctx, append(ops, last))
	var refused *refusedError
	if errors.As(err, &refused) && refused.op >= len(guard) && refused.op < len(ops) {
		return errTorn // somebody swept the pieces away; not a refusal
	}
	if err == nil {
		c.discard(ctx, last.key, keys, guard)
	}
	return err
}

// discard deletes the pieces that a key referred to before. What it misses is swept.
func (c *Client) discard(ctx context.Context, key string, now []string, guard []op) {
	c.mu.Lock()
	before := c.pieces[key]
	c.pieces[key] = now
	if len(now) == 0 {
		delete(c.pieces, key)
	}
	c.mu.Unlock()
	if len(before) == 0 {
		return
	}
	ops := slices.Clone(guard)
	for _, piece := range before {
		ops = append(ops, op{verb: verbDelete, key: piece})
	}
	if _, err := c.backend.apply(ctx, ops); err != nil {
		c.log.Debug("delete the pieces of the last value", slog.String("key", key), slog.Any("error", err))
	}
}

// value returns what stands at a pair's key.
func (c *Client) value(ctx context.Context, kind, id string, at []byte) ([]byte, error) {
	value, err := unpack(at, func(version string) ([][]byte, error) {
		pairs, _, err := c.backend.list(ctx, c.chunkPrefix(kind, id)+version+"/", 0, 0)
		pieces := make([][]byte, 0, len(pairs))
		for _, p := range pairs {
			pieces = append(pieces, p.value)
		}
		return pieces, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the value at %s: %w", c.key(kind, id), err)
	}
	return value, nil
}

// idOf returns the life that a key of a kind is about.
func (c *Client) idOf(kind, key string) (string, bool) {
	id, ok := strings.CutPrefix(key, c.key(kind, ""))
	return id, ok && id != ""
}
