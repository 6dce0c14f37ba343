//! Inputs that once broke a rule, each under the rule's name.

/// The octets that a string of hexadecimal digits stands for.
fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn octets_of_an_earlier_session_are_not_taken_for_the_new_ones() {
    for hex in [
        // the peer reconnects while we still offer, and what it sent before arrives late
        concat!(
            "1568dc51df373613f4e8ce6abffaa5799b9e4403deba8ffa0018e8f20c625c25c495390cc72dc8059165df",
            "0abf2370366255299ba863deebe8f20c625c25c4955705c772c8059165dfd54403dea18ffa0018e8f20c62",
            "5c25c495570cc772d8059165df0abf3a1f0400240402010500070180053a1f04001f04020a002403ea7f0b",
            "0d32df772500df772500e247782af794b9edb74c7a373530001f",
        ),
        // a half-open session's id serves the next one
        concat!(
            "02abd6231e05dce8018017bb906ffeb80a495ec415d503ef40e3a33dccca7f2ece454bd03b1124e5ba1679",
            "c3290432c51870deede2ef40e3a33dccca7f2ece454bd03b1124e5ba1679c329feb80a495ec415d503",
        ),
    ] {
        vmdt_fuzz::connection_pair(&octets(hex));
    }
}
