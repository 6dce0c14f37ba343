//! A bound on the size of the file.

use std::io;

use redb::StorageBackend;

/// Passes everything on, but refuses to grow beyond `max` octets as a full disk would.
#[derive(Debug)]
pub(crate) struct Limited<B> {
    pub(crate) inner: B,
    pub(crate) max: Option<u64>,
}

impl<B: StorageBackend> StorageBackend for Limited<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = len > self.inner.len()?;
        if grows && self.max.is_some_and(|max| len > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
