//! Proof that a peer knows the token, without the token crossing the wire.
//!
//! Both sides send a fresh nonce while the WebSocket is made. A proof is
//! HMAC-SHA256(token, label | client nonce | server nonce | id), each part with its length in front,
//! so that no two inputs share bytes; the label keeps one side's proof from serving as the other's.
//! A proof is worth nothing on another link, because both nonces are in it.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A fresh random number of each side.
pub type Nonce = [u8; 32];

/// What both sides know of a link before it is proved.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The client's nonce.
    pub client: Nonce,
    /// The server's nonce.
    pub server: Nonce,
}

/// Who proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prover {
    /// In hello.
    Client,
    /// In welcome.
    Server,
}

impl Challenge {
    /// The proof, in hex, that `prover` knows `token`, on the link of client `id`.
    pub fn prove(&self, token: &[u8], prover: Prover, id: &str) -> String {
        to_hex(&self.mac(token, prover, id).finalize().into_bytes())
    }

    /// Whether `proof` is right. Takes the same time however wrong it is.
    #[must_use]
    pub fn verify(&self, token: &[u8], prover: Prover, id: &str, proof: &str) -> bool {
        let mut bytes = [0; 32];
        from_hex(proof, &mut bytes) && self.mac(token, prover, id).verify_slice(&bytes).is_ok()
    }

    fn mac(&self, token: &[u8], prover: Prover, id: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(token).expect("HMAC takes a key of any length");
        let label = match prover {
            Prover::Client => "siding.1 client",
            Prover::Server => "siding.1 server",
        };
        for part in [label.as_bytes(), &self.client, &self.server, id.as_bytes()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// Bytes as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all that is written to it");
            text
        })
}

/// Reads hex that must fill `into` exactly; `false` where it does not.
#[must_use]
pub fn from_hex(text: &str, into: &mut [u8]) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let text = text.as_bytes();
    text.len() == into.len() * 2
        && into
            .iter_mut()
            .zip(text.chunks_exact(2))
            .all(|(byte, pair)| match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = high << 4 | low;
                    true
                }
                _ => false,
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"correct horse battery";

    fn challenge() -> Challenge {
        Challenge {
            client: [1; 32],
            server: [2; 32],
        }
    }

    #[test]
    fn the_right_token_is_believed_and_nothing_else() {
        let proof = challenge().prove(TOKEN, Prover::Client, "edge-1");
        assert!(challenge().verify(TOKEN, Prover::Client, "edge-1", &proof));
        assert!(challenge().verify(TOKEN, Prover::Client, "edge-1", &proof.to_uppercase()));

        assert!(!challenge().verify(b"another token 123", Prover::Client, "edge-1", &proof));
        assert!(
            !challenge().verify(TOKEN, Prover::Server, "edge-1", &proof),
            "no reflection"
        );
        assert!(
            !challenge().verify(TOKEN, Prover::Client, "edge-2", &proof),
            "no other id"
        );
        let replayed = Challenge {
            client: [1; 32],
            server: [3; 32],
        };
        assert!(
            !replayed.verify(TOKEN, Prover::Client, "edge-1", &proof),
            "no replay"
        );
        for wrong in [
            "",
            "00",
            &proof[..63],
            &format!("{proof}0"),
            &proof.replace(&proof[..1], "g"),
        ] {
            assert!(
                !challenge().verify(TOKEN, Prover::Client, "edge-1", wrong),
                "{wrong}"
            );
        }
    }

    #[test]
    fn hex_reads_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut back = vec![0; 256];
        assert!(from_hex(&to_hex(&bytes), &mut back));
        assert_eq!(back, bytes);
        assert!(!from_hex("0x", &mut [0]) && !from_hex("é", &mut [0]) && !from_hex("0", &mut [0]));
    }
}
