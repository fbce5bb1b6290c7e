//! Old bytes and a patch make new bytes. (Being built.)
