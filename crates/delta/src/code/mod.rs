//! The entropy stage: matches, differences and literals as few bits.
