//! What the product does: push, pull, fill from an upstream, vend deltas, collect. (Being built.)
