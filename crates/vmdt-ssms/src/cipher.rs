//! AES-256-CTR as version 1 of SSMS fixes it: the counter block is the nonce followed by a 32-bit
//! big-endian counter that starts at 0.

use alloc::vec;
use alloc::vec::Vec;

use aes::Aes256Enc;
use ctr::cipher::{InnerIvInit as _, KeyInit as _, KeyIvInit as _, StreamCipher as _};
use ctr::{Ctr32BE, CtrCore};

use crate::share::{KEY_LEN, NONCE_LEN};

/// The key stream of one message, to be applied once. Key schedule and left-over key stream are
/// zeroized on drop; it is used by reference because a move would leave a copy behind.
///
/// The counter cannot wrap: 2^32 blocks of 16 octets are 16 times the longest message.
pub(crate) struct Cipher(Ctr32BE<Aes256Enc>);

/// Above this many octets, a copy does not stay in the caches of most processors.
const LARGE: usize = 4 << 20;
/// How many octets are copied before they are encrypted.
const STRIP: usize = 16 << 10;

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
        if message.len() > LARGE {
            // Beyond the caches, what counts is how often memory is gone through: once, if each
            // part is copied and encrypted before the next.
            let mut out = Vec::with_capacity(message.len());
            for part in message.chunks(STRIP) {
                let from = out.len();
                out.extend_from_slice(part);
                if let Some(copy) = out.get_mut(from..) {
                    self.0.apply_keystream(copy);
                }
            }
            return out;
        }
        // Zeroed memory is cheaper than a copy as long as it stays in the cache.
        let mut out = vec![0; message.len()];
        self.0.apply_keystream_b2b(message, &mut out);
        out
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

    /// Encrypts or decrypts the next octets from `from` to `to`, which are as long.
    pub(crate) fn apply_between(&mut self, from: &[u8], to: &mut [u8]) {
        debug_assert_eq!(from.len(), to.len());
        self.0.apply_keystream_b2b(from, to);
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
        for len in (0..600).chain([8_191, 8_192, 100_000, LARGE, LARGE + STRIP + 3]) {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut in_place = message.clone();
            Cipher::new(&[9; 32], &[4; 12]).apply(&mut in_place);
            let copied = Cipher::new(&[9; 32], &[4; 12]).apply_to_copy(&message);
            assert_eq!(in_place, copied, "{len} octets");
        }
    }
}
