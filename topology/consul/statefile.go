package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
)

// remembered is what the state file holds: the life that is not given back yet.
type remembered struct {
	Life    string `json:"life"`
	Session string `json:"session"`
	Service string `json:"service"`
}

// remember writes down a life before it is used.
func (c *Client) remember(l *life) error {
	if c.state == "" {
		return nil
	}
	data, err := json.Marshal(remembered{Life: l.id, Session: l.session, Service: l.service.id})
	if err != nil {
		return fmt.Errorf("remember the session: %w", err)
	}
	temporary := c.state + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("remember the session: %w", err)
	}
	if err := os.Rename(temporary, c.state); err != nil {
		return fmt.Errorf("remember the session: %w", err)
	}
	return nil
}

func (c *Client) forget() error {
	if c.state == "" {
		return nil
	}
	if err := os.Remove(c.state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the session: %w", err)
	}
	return nil
}

// bury ends the life that a killed process left behind, or that could not be
// given back. A file that cannot be read is no reason not to join: that life
// expires.
func (c *Client) bury(ctx context.Context) error {
	if c.state == "" {
		return nil
	}
	data, err := os.ReadFile(c.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var old remembered
	if err == nil {
		err = json.Unmarshal(data, &old)
	}
	if err != nil || old.Session == "" {
		c.log.Warn("read the session of the last life", slog.String("file", c.state), slog.Any("error", err))
		return c.forget()
	}
	if err := c.backend.destroySession(ctx, old.Session); err != nil {
		return fmt.Errorf("end the last life %s: %w", old.Life, err)
	}
	if err := c.backend.deregister(ctx, old.Service); err != nil {
		c.log.Debug("deregister the last life's service", slog.Any("error", err))
	}
	return c.forget()
}
