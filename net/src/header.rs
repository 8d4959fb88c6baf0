//! The header before each frame (5.1.6), checked against what was agreed on.
//!
//! ```text
//!   byte  0 flags | 1 gso_type
//!   le16  2 hdr_len | 4 gso_size | 6 csum_start | 8 csum_offset | 10 num_buffers
//! ```
//!
//! A header of the driver's goes to the kernel only as far as it means something here; the rest is zero.
//! `hdr_len` goes along: it is a hint, which the kernel does not rely on (5.1.6.2.2).

use wire::net::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, HDR_F_DATA_VALID, HDR_F_NEEDS_CSUM, HEADER_BYTES, HEADER_CSUM_OFFSET,
    HEADER_CSUM_START, HEADER_FLAGS, HEADER_GSO_SIZE, HEADER_GSO_TYPE, HEADER_NUM_BUFFERS,
};

use crate::{Error, Offloads};

const HEADER_HDR_LEN: usize = 2;

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 2;

/// Whose header it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Driver,
    Link,
}

/// Makes of `header`, before a frame of `frame_bytes`, one that says what was agreed on and nothing else.
pub(crate) fn check(
    header: [u8; HEADER_BYTES],
    frame_bytes: usize,
    offloads: Offloads,
    from: From,
) -> Result<[u8; HEADER_BYTES], Error> {
    let le16 = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (flags, gso_type) = (header[HEADER_FLAGS], header[HEADER_GSO_TYPE]);
    let mut checked = [0; HEADER_BYTES];
    let mut keep = |at: usize| checked[at..at + 2].copy_from_slice(&header[at..at + 2]);

    // "The device MUST ignore flag bits that it does not recognize" (5.1.6.2.2).
    let mut known = flags & HDR_F_NEEDS_CSUM;
    if known != 0 {
        let (start, offset) = (le16(HEADER_CSUM_START), le16(HEADER_CSUM_OFFSET));
        if !offloads.checksum {
            return Err(Error::NotAgreed { flags, gso_type });
        }
        if usize::from(start) + usize::from(offset) + CHECKSUM_BYTES > frame_bytes {
            return Err(Error::Checksum { start, offset, frame_bytes });
        }
        keep(HEADER_CSUM_START);
        keep(HEADER_CSUM_OFFSET);
    }
    // The link may say that a checksum was right (5.1.6.4); a driver may not (5.1.6.2.1).
    if from == From::Link && offloads.checksum {
        known |= flags & HDR_F_DATA_VALID;
    }
    if gso_type != GSO_NONE {
        let agreed = match gso_type & !GSO_ECN {
            GSO_TCPV4 => offloads.tcp4,
            GSO_TCPV6 => offloads.tcp6,
            _ => false,
        };
        if !agreed || gso_type & GSO_ECN != 0 && !offloads.ecn {
            return Err(Error::NotAgreed { flags, gso_type });
        }
        // "the driver MUST also set the VIRTIO_NET_HDR_F_NEEDS_CSUM bit" (5.1.6.2.1).
        let segment_bytes = le16(HEADER_GSO_SIZE);
        if segment_bytes == 0 || flags & HDR_F_NEEDS_CSUM == 0 {
            return Err(Error::Segmentation { segment_bytes, flags });
        }
        keep(HEADER_GSO_SIZE);
        keep(HEADER_HDR_LEN);
        checked[HEADER_GSO_TYPE] = gso_type;
    }
    checked[HEADER_FLAGS] = known;
    Ok(checked)
}

/// Says how many buffers a frame is received into.
pub(crate) fn set_buffers(packet: &mut [u8], buffers: u16) {
    packet[HEADER_NUM_BUFFERS..][..2].copy_from_slice(&buffers.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true, ecn: true };

    fn header(flags: u8, gso_type: u8, gso_size: u16, start: u16, offset: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0xff; HEADER_BYTES];
        (header[0], header[1]) = (flags, gso_type);
        for (at, value) in [(2, 54), (4, gso_size), (6, start), (8, offset)] {
            header[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
        }
        header
    }

    #[test]
    fn what_means_nothing_does_not_go_along() {
        let plain = header(0xfe, GSO_NONE, 9, 9, 9);
        assert_eq!(check(plain, 60, ALL, From::Driver).unwrap(), [0; HEADER_BYTES]);
        let segments = header(HDR_F_NEEDS_CSUM, GSO_TCPV4, 1448, 34, 16);
        let checked = check(segments, 3000, ALL, From::Driver).unwrap();
        assert_eq!((&checked[..10], &checked[10..]), (&segments[..10], &[0, 0][..]));
        assert_eq!(check(header(HDR_F_DATA_VALID, 0, 0, 0, 0), 60, ALL, From::Driver).unwrap()[0], 0);
        assert_eq!(check(header(HDR_F_DATA_VALID, 0, 0, 0, 0), 60, ALL, From::Link).unwrap()[0], HDR_F_DATA_VALID);
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let check = |header, offloads| check(header, 100, offloads, From::Driver);
        let without = |change: fn(&mut Offloads)| {
            let mut offloads = ALL;
            change(&mut offloads);
            offloads
        };
        let checksum = header(HDR_F_NEEDS_CSUM, GSO_NONE, 0, 14, 2);
        assert!(matches!(check(checksum, Offloads::default()), Err(Error::NotAgreed { .. })));
        for (gso_type, offloads) in [
            (GSO_TCPV4, without(|offloads| offloads.tcp4 = false)),
            (GSO_TCPV6, without(|offloads| offloads.tcp6 = false)),
            (GSO_TCPV4 | GSO_ECN, without(|offloads| offloads.ecn = false)),
            (GSO_ECN, ALL),
            (3, ALL),
            (5, ALL),
        ] {
            let header = header(HDR_F_NEEDS_CSUM, gso_type, 100, 14, 2);
            assert!(matches!(check(header, offloads), Err(Error::NotAgreed { .. })), "{gso_type}");
        }
        let no_size = header(HDR_F_NEEDS_CSUM, GSO_TCPV6, 0, 14, 2);
        assert!(matches!(check(no_size, ALL), Err(Error::Segmentation { .. })));
        assert!(matches!(check(header(0, GSO_TCPV6, 9, 14, 2), ALL), Err(Error::Segmentation { .. })));
    }

    proptest! {
        #[test]
        fn a_checked_header_keeps_its_checksum_in_the_frame_and_passes_again(
            bytes in prop_oneof![
                any::<[u8; HEADER_BYTES]>(),
                (0u8..4, prop::sample::select(vec![0u8, 1, 4, 0x81, 3]), 0u16..3, 0u16..120, 0u16..120)
                    .prop_map(|(flags, gso_type, size, start, offset)| header(flags, gso_type, size, start, offset)),
            ],
            frame_bytes in 14usize..200,
            (checksum, tcp4, tcp6, ecn) in any::<(bool, bool, bool, bool)>(),
            from_link: bool,
        ) {
            let (offloads, from) =
                (Offloads { checksum, tcp4, tcp6, ecn }, if from_link { From::Link } else { From::Driver });
            if let Ok(checked) = check(bytes, frame_bytes, offloads, from) {
                let le16 = |at: usize| usize::from(u16::from_le_bytes([checked[at], checked[at + 1]]));
                prop_assert!(le16(6) + le16(8) + 2 <= frame_bytes);
                prop_assert!(checksum || checked[0] & HDR_F_NEEDS_CSUM == 0);
                prop_assert!(checked[1] == 0 || tcp4 || tcp6);
                prop_assert_eq!(check(checked, frame_bytes, offloads, from).unwrap(), checked);
            }
        }
    }
}
