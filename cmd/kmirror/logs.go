package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// newLogger makes the daemon's logger. level is debug, info, warn or error;
// format is text or json.
func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	threshold, ok := levels[strings.ToLower(level)]
	if !ok {
		return nil, withCode(exitUsage, fmt.Errorf("--log-level %s: it is debug, info, warn or error", level))
	}
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
