//! The helper: captures the old server's UIDLs, builds the index, and looks after the site.
fn main() {}
