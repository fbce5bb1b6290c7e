//! A gzip blob without its Huffman layer, and back to the identical bytes.
//!
//! One changed byte in a file shifts every bit behind it in the gzip blob, so that two compressed layers look alike
//! nowhere. Underneath, the LZ77 tokens of everything that did not change are the same. [`decode`] writes those tokens
//! as whole bytes, with all that is needed to come back (headers, Huffman tables, padding, trailers) beside them, and
//! [`encode`] makes the identical blob of that. Neither knows or guesses which program compressed: whatever the encoder
//! decided is written down. The idea is that of puffin, the patcher of ChromeOS; formats are RFC 1951 and RFC 1952.
//!
//! Checksums and distances are carried, not checked, and nothing is decompressed, so that a damaged blob comes back
//! with the same damage. Both directions stream in a few hundred KiB of memory.
//!
//! | module | knows |
//! |---|---|
//! | `deflate` | the constants of RFC 1951 |
//! | `tables` | how a block says its Huffman codes |
//! | `huffman` | codes made of code lengths, in both directions |
//! | `bits` | the bit order of deflate |
//! | `layout` | the bytes of a token stream |
//! | `decode`, `encode` | gzip to tokens, and back |

mod bits;
mod decode;
mod deflate;
mod encode;
mod huffman;
mod layout;
mod tables;

pub use decode::decode;
pub use encode::encode;
