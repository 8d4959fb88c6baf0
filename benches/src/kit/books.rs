//! The kernel's books of this process: what its memory really costs, whatever any of us believes.

use std::{fs, io::ErrorKind, path::Path};

use crate::kit::error::Error;

/// Anonymous memory of this process, bytes; a page that KSM shares counts once (`Pss_Anon`).
pub fn anonymous_bytes() -> Result<u64, Error> {
    Ok(field("/proc/self/smaps_rollup", "Pss_Anon:")? << 10)
}

/// Page tables of this process, bytes.
pub fn page_table_bytes() -> Result<u64, Error> {
    Ok(field("/proc/self/status", "VmPTE:")? << 10)
}

/// Address-space areas of this process.
pub fn areas() -> Result<u64, Error> {
    let path = "/proc/self/maps";
    let maps = fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
    Ok(maps.iter().filter(|&&byte| byte == b'\n').count() as u64)
}

/// A number of a file of lines `NAME NUMBER`; 0 where there is no such line.
pub fn field(path: &str, name: &str) -> Result<u64, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0))
}

/// One of the kernel's slab caches.
#[derive(Clone, Copy, Debug)]
pub struct Slab(pub &'static str);

impl Slab {
    /// Bytes of one object.
    pub fn object_bytes(self) -> Result<u64, Error> {
        self.attribute("slab_size")
    }

    /// Bytes of all objects in use. Caches of like objects may be one.
    pub fn bytes(self) -> Result<u64, Error> {
        Ok(self.attribute("objects")? * self.object_bytes()?)
    }

    fn attribute(self, name: &str) -> Result<u64, Error> {
        let path = Path::new("/sys/kernel/slab").join(self.0).join(name);
        let text = fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let number = text.split_whitespace().next().and_then(|number| number.parse().ok());
        number.ok_or(Error::File { path, source: ErrorKind::InvalidData.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_counted() {
        let before = anonymous_bytes().unwrap();
        let touched = vec![1u8; 32 << 20];
        let grown = anonymous_bytes().unwrap() - before;
        assert!(std::hint::black_box(touched).len() == 32 << 20 && grown >= 31 << 20, "{grown}");
    }

    #[test]
    fn a_line_that_is_not_there_counts_nothing() {
        assert!(areas().unwrap() > 0 && page_table_bytes().unwrap() > 0);
        assert_eq!(field("/proc/self/status", "NoSuchLine:").unwrap(), 0);
    }
}
