//! The command line.

use wire::pc::{COMMAND_LINE_BASE, COMMAND_LINE_BYTES};

use crate::{Error, Write};

/// The line, with a zero behind it, if it is one that a kernel takes which says that it takes `bytes_max`.
pub(crate) fn write(line: &str, bytes_max: usize) -> Result<Write<'static>, Error> {
    let (bytes, bytes_max) = (line.len(), bytes_max.min(COMMAND_LINE_BYTES as usize - 1));
    if bytes > bytes_max {
        return Err(Error::CommandLineLength { bytes, bytes_max });
    }
    if let Some((at, byte)) = line.bytes().enumerate().find(|(_, byte)| !(b' '..=b'~').contains(byte)) {
        return Err(Error::CommandLineByte { at, byte });
    }
    Ok(Write { gpa: COMMAND_LINE_BASE, bytes: [line.as_bytes(), &[0]].concat().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_a_zero_and_is_as_long_as_the_kernel_takes() {
        assert_eq!(&*write("quiet", 5).unwrap().bytes, b"quiet\0");
        assert_eq!(write("quiet!", 5), Err(Error::CommandLineLength { bytes: 6, bytes_max: 5 }));
        let long = "x".repeat(1 << 16);
        assert_eq!(write(&long, usize::MAX), Err(Error::CommandLineLength { bytes: 1 << 16, bytes_max: 0xffff }));
    }

    #[test]
    fn bytes_that_end_a_line_or_are_no_text_are_refused() {
        for (line, at, byte) in [("a\0b", 1, 0), ("\n", 0, 10), ("caf\u{e9}", 3, 0xc3), ("\u{7f}", 0, 0x7f)] {
            assert_eq!(write(line, 100), Err(Error::CommandLineByte { at, byte }));
        }
    }
}
