// Package mm2 knows what Apache Kafka's MirrorMaker 2 leaves behind: its property
// file, the positions that it stores, the offset syncs that it writes, and what its
// copy of a partition looks like after it was stopped or killed.
//
// It keeps one promise: what it says of a copy is proven by the copy and the source,
// or it says that it is not. It is pure: it reads no file and asks no cluster; records
// come in as bytes or as fingerprints, and what mirror.yaml shall say goes out as
// text. It does not know how kmirror mirrors.
//
// What MirrorMaker 2 does is described by Apache Kafka's sources (connect/mirror and
// connect/runtime, 3.0 to 4.2); names of its classes and keys are used as they stand
// there.
package mm2
