//! Compressed members inside content, opened: gzip files and members of zip archives inside a layer.
//!
//! A changelog that grew by one entry is another file from its first compressed byte on. *Unfolding* replaces such
//! stretches of deflate by what they inflate to, in the bases and in the target; *folding* compresses them again, with
//! an encoder that was proven to write the same bytes. Headers and trailers of the members stay where they are.

mod find;
mod fold;
mod list;
mod members;
mod unfolder;

pub(crate) use find::{Unfolded, find};
pub(crate) use fold::Folder;
pub(crate) use list::{Fold, Packed, read_folds, read_packed, write_folds, write_packed};
pub(crate) use unfolder::Unfolder;

/// How many stretches are unfolded, in all bases or in the target; enough for every class of a large Java application.
pub(crate) const MAX_MEMBERS: usize = 1 << 18;
