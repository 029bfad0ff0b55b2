//! RULE: what a client may dial.
//!
//! A rule is `HOST:PORT`. HOST is a name, `*.suffix`, `*`, an address or a CIDR; PORT a number, a
//! range or `*`. Names say what may be asked for, and are held to the kinds of address that such a
//! name has any business to resolve to; addresses and CIDRs say what may be dialled, whatever was
//! asked for. Or it is `unix:/path`, and covers that socket: no pattern covers any, since what listens on
//! one (a container engine, say) is often there for the machine's own administrator.
//!
//! Everything here is a pure function of the rules: who resolved the name, and when, is not known.

use std::{fmt, net::IpAddr, ops::RangeInclusive, rc::Rc, str::FromStr};

use super::{
    host::{Host, split_outside_brackets},
    spec::Spec,
    special::{self, Class, Network},
    target::{SocketPath, Target, path_in},
    value::{Invalid, PortRange, impl_text},
};

/// All that a client may dial. Without rules: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    rules: Vec<Rule>,
}

impl Allow {
    /// The rules as configured, and an exact one for each exposed target. `forward` and `socks5` have no
    /// target and imply nothing.
    pub fn new<'a>(mut rules: Vec<Rule>, expose: impl IntoIterator<Item = &'a Spec>) -> Self {
        let targets = expose.into_iter().filter_map(|spec| spec.target.as_ref());
        rules.extend(targets.map(Rule::exact));
        Self { rules }
    }

    /// The rules, implied ones last.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any address behind this host could be permitted. Asked before a name is looked up,
    /// so that hopeless requests cost no lookup.
    pub fn may_dial(&self, host: &Host, port: u16) -> bool {
        match host {
            Host::Address(address) => self.permits(host, port, *address),
            Host::Name(name) => self.patterns(port).any(|pattern| match pattern {
                Pattern::Network(_) => true,
                pattern => pattern.matches_name(name),
            }),
        }
    }

    /// Whether `address` may be dialled, or a connection parked with it as its peer be used, for a
    /// stream that asked for `host` and `port`.
    pub fn permits(&self, host: &Host, port: u16, address: IpAddr) -> bool {
        let address = special::unwrap_address(address);
        if let Host::Address(asked) = host
            && special::unwrap_address(*asked) != address
        {
            return false;
        }
        self.patterns(port)
            .any(|pattern| pattern.permits(host, address))
    }

    /// Whether the unix socket of this path may be dialled, or a connection that is parked for it be used.
    pub fn permits_socket(&self, path: &SocketPath) -> bool {
        self.rules
            .iter()
            .any(|Rule(covered)| matches!(covered, Covered::Socket(allowed) if allowed == path))
    }

    /// The HOSTs of all rules that cover a port.
    fn patterns(&self, port: u16) -> impl Iterator<Item = &Pattern> {
        self.rules
            .iter()
            .filter_map(move |Rule(covered)| match covered {
                Covered::Ports(pattern, ports) => ports.contains(&port).then_some(pattern),
                Covered::Socket(_) => None,
            })
    }
}

/// One rule. Prints its canonical form, which parses to an equal rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(Covered);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Covered {
    /// These ports of these hosts.
    Ports(Pattern, RangeInclusive<u16>),
    /// This unix socket.
    Socket(SocketPath),
}

impl Rule {
    /// The rule that an exposed target implies.
    fn exact(target: &Target) -> Self {
        Self(match target {
            Target::Inet { host, port } => {
                Covered::Ports(Pattern::exact(host.clone()), *port..=*port)
            }
            Target::Unix(path) => Covered::Socket(path.clone()),
        })
    }
}

/// Every port that can be dialled.
const PORTS_ALL: RangeInclusive<u16> = 1..=u16::MAX;

impl FromStr for Rule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = path_in(text) {
            return Ok(Self(Covered::Socket(path.parse()?)));
        }
        let fields = split_outside_brackets(text)?;
        let [host, port] = fields.as_slice() else {
            return Err(Invalid::new(format!(
                "{text:?} is not HOST:PORT, such as 127.0.0.1:3000-3010, *.example.com:443 or [fd00::/8]:* (IPv6 in brackets), nor unix:/path"
            )));
        };
        let ports = match *port {
            "*" => PORTS_ALL,
            port => {
                port.parse::<PortRange>()
                    .map_err(|_| {
                        Invalid::new(format!(
                            "PORT {port:?} is not a number from 1 to 65535, a range such as 8000-8100, or *"
                        ))
                    })?
                    .0
            }
        };
        Ok(Self(Covered::Ports(host.parse()?, ports)))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Covered::Ports(pattern, ports) if *ports == PORTS_ALL => write!(f, "{pattern}:*"),
            Covered::Ports(pattern, ports) => write!(f, "{pattern}:{}", PortRange(ports.clone())),
            Covered::Socket(path) => write!(f, "unix:{path}"),
        }
    }
}

impl_text!(
    Rule,
    "a RULE, such as \"127.0.0.1:3000-3010\" or \"*.example.com:443\""
);

/// The HOST of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// Any host, name or address.
    Any,
    /// Any name that ends in `.` and this, which is in the form of [`Host::Name`].
    Suffix(Rc<str>),
    /// This name, in the form of [`Host::Name`].
    Name(Rc<str>),
    /// These addresses, unwrapped.
    Network(Network),
}

impl Pattern {
    fn exact(host: Host) -> Self {
        match host {
            Host::Name(name) => Self::Name(name),
            Host::Address(address) => Self::Network(Network::single(address).unwrapped()),
        }
    }

    /// Whether the name may be asked for. Networks do not speak of names.
    fn matches_name(&self, name: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Suffix(suffix) => name
                .strip_suffix(&**suffix)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Pattern::Name(exact) => **exact == *name,
            Pattern::Network(_) => false,
        }
    }

    /// Whether `address`, unwrapped, may be dialled for `host`.
    fn permits(&self, host: &Host, address: IpAddr) -> bool {
        let asked = match host {
            Host::Name(name) => self.matches_name(name),
            Host::Address(_) => *self == Pattern::Any,
        };
        match self {
            Pattern::Any | Pattern::Suffix(_) => asked && special::class(address) == Class::Global,
            Pattern::Name(exact) => asked && name_may_mean(exact, address),
            Pattern::Network(network) => {
                network.contains(address) && special::speaks_for(network, address)
            }
        }
    }
}

/// Whether an exact name covers this address of all those that it may resolve to. Private ones it
/// does; but whoever controls the name's DNS must not thereby reach the client's own loopback, its
/// cloud's metadata service or a group of hosts, neither plainly nor through a transition mechanism.
fn name_may_mean(name: &str, address: IpAddr) -> bool {
    let acceptable = |address| match special::class(address) {
        Class::Global | Class::Other => true,
        Class::Loopback => name == "localhost",
        Class::LinkLocal | Class::Multicast | Class::Unspecified => false,
    };
    acceptable(address) && special::carried_address(address).is_none_or(acceptable)
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return match suffix.parse()? {
                Host::Name(suffix) => Ok(Self::Suffix(suffix)),
                Host::Address(_) => Err(Invalid::new(format!(
                    "HOST {text:?}: an address has no subdomains; write it alone, or a CIDR such as 10.0.0.0/8"
                ))),
            };
        }
        if text.contains('*') {
            return Err(Invalid::new(format!(
                "HOST {text:?}: '*' stands alone or as the first label, as in *.example.com"
            )));
        }
        match text.split_once('/') {
            Some((address, prefix)) => parse_cidr(text, address, prefix).map(Self::Network),
            None => text.parse().map(Self::exact),
        }
    }
}

/// Reads `10.0.0.0/8`, `[fd00::/8]` and `[fd00::]/8`, split at the slash.
fn parse_cidr(text: &str, address: &str, prefix: &str) -> Result<Network, Invalid> {
    let refused = |reason: &str| Invalid::new(format!("HOST {text:?} {reason}"));
    let (address, prefix) = match prefix.strip_suffix(']') {
        Some(prefix) => (format!("{address}]"), prefix),
        None => (address.to_owned(), prefix),
    };
    let Ok(Host::Address(address)) = address.parse() else {
        return Err(refused("is not a CIDR, such as 10.0.0.0/8 or [fd00::/8]"));
    };
    let network = Network::written(address, prefix).map_err(|reason| refused(&reason))?;
    Ok(network.unwrapped())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Suffix(suffix) => write!(f, "*.{suffix}"),
            Pattern::Name(name) => f.write_str(name),
            Pattern::Network(network) => network.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
