//go:build race

package checkpoint_test

// raceDetector says that the tests run under the race detector, which empties pools
// at random and allocates by itself.
const raceDetector = true
