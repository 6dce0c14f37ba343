//! AES-256-CTR as version 1 of SSMS fixes it: the counter block is the nonce followed by a 32-bit
//! big-endian counter that starts at 0.

use alloc::vec::Vec;

use aes::Aes256Enc;
use bytes::BufMut;
use ctr::cipher::{InnerIvInit as _, KeyInit as _, KeyIvInit as _, StreamCipher as _};
use ctr::{Ctr32BE, CtrCore};

use crate::share::{KEY_LEN, NONCE_LEN};

/// The key stream of one message, to be applied once. Key schedule and left-over key stream are
/// zeroized on drop; it is used by reference because a move would leave a copy behind.
///
/// The counter cannot wrap: 2^32 blocks of 16 octets are 16 times the longest message.
pub(crate) struct Cipher(Ctr32BE<Aes256Enc>);

/// Up to this many octets, a message is expected where the cipher reads it without waiting, which
/// the third-level cache is: memory is zeroed and written over faster than it is copied. Beyond,
/// copying finds what comes next long before the cipher would.
const CACHED: usize = 256 << 10;
/// How many octets are zeroed before they are written over.
const ZEROED: usize = 64 << 10;
/// How many octets of a message that is not cached are copied before they are encrypted.
const COPIED: usize = 128 << 10;

impl Cipher {
    #[inline]
    pub(crate) fn new(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN]) -> Cipher {
        let mut counter_block = [0; 16];
        counter_block[..NONCE_LEN].copy_from_slice(nonce);
        Cipher(Ctr32BE::new(key.into(), &counter_block.into()))
    }

    /// Encrypts or decrypts the whole message in place.
    pub(crate) fn apply(&mut self, message: &mut [u8]) {
        self.0.apply_keystream(message);
    }

    /// Encrypts or decrypts the whole message into a new buffer, in one pass.
    pub(crate) fn apply_to_copy(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len());
        append(&mut self.0, message, &mut out, message.len());
        out
    }
}

/// Encrypts or decrypts `part`, of a message of `whole` octets, to the end of `out`, which has room
/// for it.
fn append(
    stream: &mut Ctr32BE<Aes256Enc>,
    part: &[u8],
    out: &mut (impl BufMut + AsMut<[u8]>),
    whole: usize,
) {
    let cached = whole <= CACHED;
    for strip in part.chunks(if cached { ZEROED } else { COPIED }) {
        let start = out.as_mut().len();
        if cached {
            out.put_bytes(0, strip.len());
        } else {
            out.put_slice(strip);
        }
        let Some(octets) = out.as_mut().get_mut(start..) else {
            return;
        };
        if cached {
            stream.apply_keystream_b2b(strip, octets);
        } else {
            stream.apply_keystream(octets);
        }
    }
}

/// The key of a dispersed message, from which each piece gets a key stream of its own: piece `i` is
/// encrypted under the counter blocks that begin with the octet `i`, then have eleven zeros and a
/// 32-bit big-endian counter from 0.
///
/// A key serves one message, so that no two streams meet.
pub(crate) struct PieceKey(Aes256Enc);

impl PieceKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> PieceKey {
        PieceKey(Aes256Enc::new(key.into()))
    }

    /// The key stream of piece `index`, from its beginning.
    pub(crate) fn stream(&self, index: u8) -> PieceStream {
        let mut counter_block = [0; 16];
        counter_block[0] = index;
        let core = CtrCore::inner_iv_init(self.0.clone(), &counter_block.into());
        PieceStream(Ctr32BE::from_core(core))
    }
}

/// The key stream of one piece.
pub(crate) struct PieceStream(Ctr32BE<Aes256Enc>);

impl PieceStream {
    /// Encrypts or decrypts the next octets in place.
    pub(crate) fn apply(&mut self, octets: &mut [u8]) {
        self.0.apply_keystream(octets);
    }

    /// Encrypts or decrypts the next octets, of a message of `whole` octets, to the end of `out`,
    /// which has room for them.
    pub(crate) fn append(
        &mut self,
        part: &[u8],
        out: &mut (impl BufMut + AsMut<[u8]>),
        whole: usize,
    ) {
        append(&mut self.0, part, out, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn zeroizes_on_drop<T: zeroize::ZeroizeOnDrop>() {}
    const _: () = zeroizes_on_drop::<Ctr32BE<Aes256Enc>>();
    const _: () = zeroizes_on_drop::<Aes256Enc>();

    /// RFC 3686, section 6, test vector 7. Its first counter is 1 and ours is 0, so the vector's
    /// block is our second.
    #[test]
    fn agrees_with_rfc_3686_vector_7() {
        let key = [
            0x77, 0x6b, 0xef, 0xf2, 0x85, 0x1d, 0xb0, 0x6f, 0x4c, 0x8a, 0x05, 0x42, 0xc8, 0x69,
            0x6f, 0x6c, 0x6a, 0x81, 0xaf, 0x1e, 0xec, 0x96, 0xb4, 0xd3, 0x7f, 0xc1, 0xd6, 0x89,
            0xe6, 0xc1, 0xc1, 0x04,
        ];
        let nonce = [
            0x00, 0x00, 0x00, 0x60, 0xdb, 0x56, 0x72, 0xc9, 0x7a, 0xa8, 0xf0, 0xb2,
        ];
        let mut text = [0; 32];
        text[16..].copy_from_slice(b"Single block msg");
        Cipher::new(&key, &nonce).apply(&mut text);
        let want = [
            0x14, 0x5a, 0xd0, 0x1d, 0xbf, 0x82, 0x4e, 0xc7, 0x56, 0x08, 0x63, 0xdc, 0x71, 0xe3,
            0xe0, 0xc0,
        ];
        assert_eq!(text[16..], want);
    }

    #[test]
    fn copying_and_in_place_agree_at_every_length() {
        for len in (0..600).chain([8_191, 8_192, ZEROED, 5 * ZEROED + 3, CACHED, CACHED + 1]) {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut in_place = message.clone();
            Cipher::new(&[9; 32], &[4; 12]).apply(&mut in_place);
            let copied = Cipher::new(&[9; 32], &[4; 12]).apply_to_copy(&message);
            assert_eq!(in_place, copied, "{len} octets");
        }
    }
}
