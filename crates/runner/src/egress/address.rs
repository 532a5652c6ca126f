//! Which addresses a name may lead to. A name is the operator's word; where it leads is whoever answers for the name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::ledger::Refusal;

/// How far an address is from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// An address of the public internet.
    Public,
    /// An address of the operator's own network: only for names that the operator calls internal.
    Private,
    /// An address that no run reaches, whatever its name.
    Never,
}

/// Whether a destination's addresses may be private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Public,
    Internal,
}

/// Blocks with the number of their fixed bits. The first that matches holds.
const BLOCKS: [(&str, u32, Reach); 26] = [
    ("0.0.0.0", 8, Reach::Never),
    ("127.0.0.0", 8, Reach::Never),
    // Link-local, which is where most clouds tell a machine its credentials.
    ("169.254.0.0", 16, Reach::Never),
    // And where others do: one in a shared block, one among public addresses.
    ("100.100.100.200", 32, Reach::Never),
    ("168.63.129.16", 32, Reach::Never),
    ("10.0.0.0", 8, Reach::Private),
    ("172.16.0.0", 12, Reach::Private),
    ("192.168.0.0", 16, Reach::Private),
    ("100.64.0.0", 10, Reach::Private),
    ("192.0.0.0", 24, Reach::Never),
    ("192.0.2.0", 24, Reach::Never),
    ("192.88.99.0", 24, Reach::Never),
    ("198.18.0.0", 15, Reach::Never),
    ("198.51.100.0", 24, Reach::Never),
    ("203.0.113.0", 24, Reach::Never),
    // Multicast, reserved and broadcast.
    ("224.0.0.0", 3, Reach::Never),
    ("0.0.0.0", 0, Reach::Public),
    // A machine's credentials again.
    ("fd00:ec2::", 32, Reach::Never),
    ("fd20:ce::", 32, Reach::Never),
    ("fc00::", 7, Reach::Private),
    // Special purposes, and addresses that hold an IPv4 address which would have to be judged in their place.
    ("2001::", 23, Reach::Never),
    ("2001:db8::", 32, Reach::Never),
    ("2002::", 16, Reach::Never),
    ("3fff::", 20, Reach::Never),
    ("2000::", 3, Reach::Public),
    // Loopback, unspecified, IPv4-mapped, translated, link-local, site-local, multicast: all that is not global unicast.
    ("::", 0, Reach::Never),
];

fn reach(address: IpAddr) -> Reach {
    BLOCKS
        .iter()
        .find(|(block, bits, _)| match (block.parse(), address) {
            (Ok(IpAddr::V4(block)), IpAddr::V4(address)) => {
                same(block.to_bits().into(), address.to_bits().into(), 32, *bits)
            }
            (Ok(IpAddr::V6(block)), IpAddr::V6(address)) => same(block.to_bits(), address.to_bits(), 128, *bits),
            _ => false,
        })
        .map_or(Reach::Never, |(_, _, reach)| *reach)
}

/// Whether the first `bits` of two addresses of `width` bits are the same.
fn same(one: u128, other: u128, width: u32, bits: u32) -> bool {
    (one ^ other).checked_shr(width.saturating_sub(bits)).unwrap_or(0) == 0
}

/// Checks every address of a name. One that is wrong speaks against the name, not only against itself: an answer that mixes
/// addresses of the internet with addresses of ours is what a rebinding attack looks like.
pub(crate) fn check(addresses: &[SocketAddr], own: &[IpAddr], expected: Where) -> Result<(), Refusal> {
    for address in addresses {
        let ip = address.ip();
        if own.iter().any(|own| plain(*own) == plain(ip)) {
            return Err(Refusal::OwnAddress);
        }
        match (reach(ip), expected) {
            (Reach::Public, _) | (Reach::Private, Where::Internal) => {}
            (Reach::Private, Where::Public) => return Err(Refusal::PrivateAddress),
            (Reach::Never, _) => return Err(Refusal::ForbiddenAddress),
        }
    }
    if addresses.is_empty() { Err(Refusal::Unresolved) } else { Ok(()) }
}

/// An IPv4 address that is written as an IPv6 one is the same address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        four @ IpAddr::V4(_) => four,
    }
}

/// Returns the addresses of this host's interfaces, as they are now.
pub(crate) fn of_this_host() -> std::io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(Ipv6Addr::from(six.ip().octets()))))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(addresses: &[&str], expected: Where) -> Result<(), Refusal> {
        let addresses: Vec<_> =
            addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 443)).collect();
        let own = ["93.184.216.34".parse().unwrap(), "2606:4700::1".parse().unwrap()];
        check(&addresses, &own, expected)
    }

    #[test]
    fn a_name_leads_to_the_public_internet_and_nowhere_else() {
        for address in ["1.1.1.1", "11.0.0.2", "172.32.0.1", "100.128.0.1", "223.255.255.255", "2a00:1450:4001::1"] {
            assert_eq!(checked(&[address], Where::Public), Ok(()), "{address}");
        }
        for address in ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12:3456::1"] {
            assert_eq!(checked(&[address], Where::Public), Err(Refusal::PrivateAddress), "{address}");
            assert_eq!(checked(&[address], Where::Internal), Ok(()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::ffff:0:1.1.1.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            for expected in [Where::Public, Where::Internal] {
                assert_eq!(checked(&[address], expected), Err(Refusal::ForbiddenAddress), "{address}");
            }
        }
    }

    #[test]
    fn one_wrong_address_speaks_against_all_and_ours_is_always_wrong() {
        assert_eq!(checked(&["1.1.1.1", "127.0.0.1"], Where::Public), Err(Refusal::ForbiddenAddress));
        assert_eq!(checked(&["1.1.1.1", "10.0.0.1"], Where::Public), Err(Refusal::PrivateAddress));
        assert_eq!(checked(&[], Where::Public), Err(Refusal::Unresolved));
        for own in ["93.184.216.34", "::ffff:93.184.216.34", "2606:4700::1"] {
            assert_eq!(checked(&[own], Where::Internal), Err(Refusal::OwnAddress), "{own}");
        }
    }

    #[test]
    fn every_block_is_written_with_nothing_behind_its_fixed_bits() {
        for (block, bits, _) in BLOCKS {
            let rest = match block.parse().unwrap() {
                IpAddr::V4(block) => u128::from(block.to_bits()).checked_shl(96 + bits).unwrap_or(0),
                IpAddr::V6(block) => block.to_bits().checked_shl(bits).unwrap_or(0),
            };
            assert_eq!(rest, 0, "{block}/{bits}");
        }
        // This machine has at least its loopback.
        assert!(of_this_host().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }
}
