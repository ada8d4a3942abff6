package console

// SourceHash shows the tests how the policy names inline code.
func SourceHash(source []byte) string { return sourceHash(source) }
