//! The roles on the network of this machine, until they end.
//!
//! What is generic over the network is made for it here and in the demo, thus in one crate: the program
//! would carry all of it twice otherwise.

use std::time::Duration;

use crate::{
    client::Client,
    config::{ClientConfig, ServerConfig, Source},
    reactor::{Reactor, mio_net::MioNet},
    server::Server,
};

/// Runs a server until it is asked to end. `source` is where its configuration came from.
///
/// # Errors
/// A listener could not be had, or the event loop failed.
pub fn server(config: ServerConfig, source: Source<ServerConfig>) -> Result<(), String> {
    let mut reactor = reactor(config.spin)?;
    let mut server = Server::start(config, &mut reactor).map_err(|error| error.to_string())?;
    server.open_admin(&mut reactor)?;
    server.reads_from(source, &mut reactor);
    reactor.settled();
    reactor
        .run(&mut server)
        .map_err(|error| format!("event loop: {error}"))
}

/// Runs a client until it is asked to end. `source` is where its configuration came from.
///
/// # Errors
/// The event loop failed.
pub fn client(config: ClientConfig, source: Source<ClientConfig>) -> Result<(), String> {
    let mut reactor = reactor(config.spin)?;
    let mut client = Client::start(config, &mut reactor);
    client.open_admin(&mut reactor)?;
    client.reads_from(source, &mut reactor);
    client.watches_network(&mut reactor);
    reactor.settled();
    reactor
        .run(&mut client)
        .map_err(|error| format!("event loop: {error}"))
}

fn reactor<O: Copy>(spin: Duration) -> Result<Reactor<MioNet, O>, String> {
    let mut net = MioNet::of_process().map_err(|error| format!("event loop: {error}"))?;
    net.set_spin(spin);
    Ok(Reactor::new(net))
}
