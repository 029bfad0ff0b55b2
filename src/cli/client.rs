//! What a client is to do: its flags, joined with a configuration file.

use super::{
    Source, Variables, admin,
    arguments::ClientArguments,
    files::{Files, load_token, read_users},
    proxies::{Collision, check_options, collision, fixed},
    usage_error,
};
use crate::config::{
    Allow, ClientConfig, Exposed, Invalid, Kind, Logging, PoolLimits, Spec, Via,
    file::{ClientFile, Document},
    server_default, token, via,
};

/// Joins what was typed with the file, and checks what no single value shows.
pub(super) fn config(
    typed: ClientArguments,
    file: ClientFile,
    document: Option<&Document>,
    variables: Variables<'_>,
) -> Result<ClientConfig, Invalid> {
    let Some(id) = typed.id.or(file.id) else {
        let reason =
            "a client needs an id, by which the server knows it: give --id ID or the field id";
        return Err(match document {
            Some(document) => document.error("", reason),
            None => Invalid::new(usage_error(reason)),
        });
    };
    let token = load_token(
        typed.token_file.as_deref(),
        variables(token::VARIABLE),
        file.token_file,
        document,
    )?;

    let expose_from = Source::of(!typed.expose.is_empty(), document);
    let mut expose = if typed.expose.is_empty() {
        file.expose
    } else {
        typed.expose.into_iter().map(Exposed::from).collect()
    };
    read_users(
        expose.iter_mut().map(|exposed| &mut exposed.options),
        "expose",
        document,
    )?;
    let name = |index: usize| match expose_from {
        Source::Flag => format!("--expose {}", expose[index].spec),
        Source::Field(_) => format!("expose[{index}]"),
    };
    check_options(
        expose
            .iter()
            .map(|exposed| (&exposed.spec, &exposed.options)),
        expose_from,
        name,
    )?;
    for (index, exposed) in expose.iter().enumerate() {
        if let Some(reason) = exposed.options.unsayable() {
            return Err(expose_from.error(&name(index), &name(index), reason));
        }
    }
    let https = |exposed: &Exposed| matches!(exposed.spec.kind, Kind::Https | Kind::Tls);
    if !cfg!(feature = "tls")
        && let Some(index) = expose.iter().position(https)
    {
        let reason = "this siding was built without TLS, which https and tls need";
        return Err(expose_from.error(&name(index), &name(index), reason));
    }
    // The server's bind is not known here, so only what is written alike is known to collide.
    let listener = |exposed: &Exposed| {
        let Spec { bind, port, .. } = exposed.spec;
        fixed(port, (bind, port))
    };
    let listening = expose
        .iter()
        .map(|exposed| (listener(exposed), exposed.spec.kind, &exposed.options));
    if let Some(Collision {
        earlier,
        index,
        why,
    }) = collision(listening)
    {
        let reason = format_args!(
            "{} listens on port {} already: {why}",
            name(earlier),
            expose[index].spec.port
        );
        return Err(expose_from.error(&name(index), &name(index), reason));
    }

    let files = Files { document };
    let identity = files.identity((typed.cert, typed.key), (file.cert, file.key))?;
    let ca = files.roots(typed.ca, file.ca, "--ca", "ca")?;
    let target_ca = files.roots(typed.target_ca, file.target_ca, "--target-ca", "target_ca")?;

    let server = typed.server.or(file.server).unwrap_or_else(server_default);
    let via = match (typed.via, file.via) {
        // Parsed here: argh would repeat a wrong one in its message, with its password.
        (Some(text), _) => text
            .parse::<via::Asked>()
            .map_err(|error| Source::Flag.error("--via", "via", error))?
            .into(),
        (None, Some(asked)) => asked.into(),
        (None, None) => Via::from_environment(&server, variables),
    };

    let rules = if typed.allow.is_empty() {
        file.allow
    } else {
        typed.allow
    };
    let admin = admin::read(
        (typed.admin, typed.admin_token_file),
        (file.admin, file.admin_token_file),
        document,
    )?;
    Ok(ClientConfig {
        server,
        via,
        host: file.host,
        headers: file.headers,
        id,
        token,
        allow: Allow::new(rules, expose.iter().map(|exposed| &exposed.spec)),
        expose,
        ca,
        identity,
        target_ca,
        memory_max: typed.memory_max.or(file.memory_max),
        timeouts: file.timeouts,
        pool: PoolLimits {
            mode: typed.pool.unwrap_or(file.pool.mode),
            ..file.pool
        },
        limits: file.limits,
        spin: typed.spin.or(file.spin).unwrap_or_default().0,
        admin,
        log: Logging::default(),
    })
}
