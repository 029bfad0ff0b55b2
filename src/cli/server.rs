//! What a server is to do: its flags, joined with a configuration file.

use super::{
    Source, Variables, admin,
    arguments::ServerArguments,
    files::{Files, load_token, read_users},
    grants,
    proxies::{Collision, check_options, collision, fixed},
};
use crate::config::{
    BIND_DEFAULT, Invalid, Kind, LISTEN_DEFAULT, Logging, ProxyEntry, ServerConfig,
    file::{Document, Object, ServerFile},
    grant::each_has_its_own,
    token,
    value::{Address, Bind},
};

/// Joins what was typed with the file, and checks what no single value shows.
pub(super) fn config(
    typed: ServerArguments,
    file: ServerFile,
    document: Option<&Document>,
    variables: Variables<'_>,
) -> Result<ServerConfig, Invalid> {
    let listen_from = Source::of(typed.listen.is_some(), document);
    let listen = typed
        .listen
        .or(file.listen)
        .map_or(LISTEN_DEFAULT, |Address(address)| address);
    let bind = typed
        .bind
        .or(file.bind)
        .map_or(BIND_DEFAULT, |Bind(address)| address);

    let token = load_token(
        typed.token_file.as_deref(),
        variables(token::VARIABLE),
        file.token_file,
        document,
    )?;
    let clients = match document {
        Some(document) => grants::read(file.clients, bind, document, variables)?,
        None => Vec::new(),
    };
    let is_guarded = token.is_some() || each_has_its_own(&clients);
    if !is_guarded && !listen.ip().to_canonical().is_loopback() {
        return Err(listen_from.error(
            "--listen",
            "listen",
            format_args!(
                "a server without a token listens on loopback only, not on {listen}: give it one by --token-file, SIDING_TOKEN or token_file, or one to each of its clients, or listen on 127.0.0.1"
            ),
        ));
    }

    if token.is_none()
        && !file.accept_proxy.is_empty()
        && let Some(document) = document
    {
        let reason = "a server without a token is for this machine alone, and a balancer lets others through to it: give it one by --token-file, SIDING_TOKEN or token_file";
        return Err(document.error("accept_proxy", reason));
    }

    let files = Files { document };
    let first = files.identity((typed.cert, typed.key), (file.cert, file.key))?;
    let mut identities = Vec::from_iter(first);
    for (index, Object(pair)) in file.certificates.into_iter().enumerate() {
        let field = format!("certificates[{index}]");
        identities.push(files.listed_identity(&field, &pair)?);
    }
    let client_ca_from = Source::of(typed.client_ca.is_some(), document);
    let client_ca = files.roots(typed.client_ca, file.client_ca, "--client-ca", "client_ca")?;
    if client_ca.is_some() && identities.is_empty() {
        let reason = "clients show certificates to a server that has one: give --cert and --key";
        return Err(client_ca_from.error("--client-ca", "client_ca", reason));
    }

    let proxies_from = Source::of(!typed.proxy.is_empty(), document);
    let mut proxies = if typed.proxy.is_empty() {
        file.proxies
    } else {
        typed.proxy
    };
    read_users(
        proxies.iter_mut().map(|proxy| &mut proxy.options),
        "proxies",
        document,
    )?;
    let name = |index: usize| match proxies_from {
        Source::Flag => {
            let ProxyEntry { client, spec, .. } = &proxies[index];
            format!("--proxy {client}={spec}")
        }
        Source::Field(_) => format!("proxies[{index}]"),
    };
    check_options(
        proxies.iter().map(|proxy| (&proxy.spec, &proxy.options)),
        proxies_from,
        name,
    )?;
    if let Some(index) = proxies.iter().position(|proxy| proxy.options.tls)
        && identities.is_empty()
    {
        let reason = "TLS needs a certificate: give --cert and --key, or the fields cert and key";
        let name = name(index);
        return Err(proxies_from.error(&name, &format!("{name}.tls"), reason));
    }
    for (index, ProxyEntry { spec, options, .. }) in proxies.iter().enumerate() {
        let address = spec.address(bind).ip();
        if let Some(reason) = options.exposed_to_strangers(spec, address) {
            return Err(proxies_from.error(&name(index), &name(index), reason));
        }
    }
    let tls = |proxy: &ProxyEntry| proxy.spec.kind == Kind::Tls;
    if !cfg!(feature = "tls")
        && let Some(index) = proxies.iter().position(tls)
    {
        let reason = "this siding was built without TLS, which tls needs";
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    if token.is_none()
        && each_has_its_own(&clients)
        && let Some(index) = proxies
            .iter()
            .position(|proxy| clients.iter().all(|client| client.id != proxy.client))
    {
        let reason = format_args!(
            "client {} could never link: each entry of clients has a token of its own, it has none there, and there is no common one",
            proxies[index].client
        );
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    let listener = |proxy: &ProxyEntry| fixed(proxy.spec.port, proxy.spec.address(bind));
    let listening = proxies
        .iter()
        .map(|proxy| (listener(proxy), proxy.spec.kind, &proxy.options));
    if let Some(Collision {
        earlier,
        index,
        why,
    }) = collision(listening)
    {
        let address = proxies[index].spec.address(bind);
        let reason = format_args!("{} listens on {address} already: {why}", name(earlier));
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }
    let own = fixed(listen.port(), listen);
    if let Some(index) = proxies
        .iter()
        .position(|proxy| own.is_some() && listener(proxy) == own)
    {
        let reason = format_args!("the server itself listens on {listen} (--listen, listen)");
        return Err(proxies_from.error(&name(index), &name(index), reason));
    }

    let admin = admin::read(
        (typed.admin, typed.admin_token_file),
        (file.admin, file.admin_token_file),
        document,
    )?;
    if let (Some(admin), Some(own)) = (&admin, own)
        && admin.listen == own
    {
        let from = Source::of(typed.admin.is_some(), document);
        let reason = format_args!("clients connect at {listen} (--listen, listen)");
        return Err(from.error("--admin", "admin", reason));
    }

    Ok(ServerConfig {
        listen,
        bind,
        token,
        identities,
        client_ca,
        allow_from: file.allow_from,
        deny_from: file.deny_from,
        accept_proxy: file.accept_proxy,
        proxies,
        clients,
        memory_max: typed.memory_max.or(file.memory_max),
        timeouts: file.timeouts,
        limits: file.limits,
        spin: typed.spin.or(file.spin).unwrap_or_default().0,
        admin,
        log: Logging::default(),
    })
}
