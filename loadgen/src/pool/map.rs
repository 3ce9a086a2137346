//! A file mapped into memory to be read: the only unsafe code of this crate.
//!
//! Owns the map. What the bytes mean is left to [`pool`](super).

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// All of a file, mapped.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl Mapped {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        #[allow(unsafe_code, reason = "mapping a file is what this module is for")]
        // SAFETY: a map is sound while its bytes do not change under a reference to them and the file does not shrink. This process
        // opened the file for reading only and writes to no file that is mapped; `prepare` writes to a temporary name and renames it when
        // it is complete, so the name that is mapped never stands for a file under construction, and preparing again replaces the name
        // and leaves the mapped file as it is. Against another program that changes the file in place nobody who maps it is safe; the
        // format page says not to.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
