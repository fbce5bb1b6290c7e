//! Go's compress/flate up to 1.26: what docker, BuildKit, containerd, ko and crane write.
