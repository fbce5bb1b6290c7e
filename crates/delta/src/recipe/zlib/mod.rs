//! zlib, GNU gzip and pigz.
