package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// logLevel is debug, info, warn or error.
func logLevel(name string) (slog.Level, bool) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(name)]
	return level, ok
}

// newLogger makes the daemon's logger; format is text or json.
func newLogger(w io.Writer, threshold slog.Leveler, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: threshold}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, withCode(exitUsage, fmt.Errorf("--log-format %s: it is text or json", format))
	}
}
