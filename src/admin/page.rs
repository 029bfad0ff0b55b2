//! The page for people: one file, which is part of the program, and the fields that a browser guards it by.
//!
//! It asks for `/status` as anybody does, so it is told nothing that others are not. The browser is told to run
//! the page's own script and style and nothing else (so that a name that came over the wire stays a name even
//! if the page had a hole), to talk to nobody but us, and to show the page in no other's frame.

use sha2::{Digest, Sha256};

use crate::base64;

/// The page.
pub(super) const TEXT: &str = include_str!("page.html");

/// What the browser may do with it. It costs two hashes of some 20 KiB: strangers, who may open the page, must
/// not have us make them.
pub(super) fn policy() -> String {
    let [style, script] = ["style", "script"].map(|element| base64::encode(&digest(element)));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Fields of its head, with its [`policy`].
pub(super) fn fields(policy: &str) -> Vec<(&'static str, String)> {
    vec![
        ("Content-Security-Policy", policy.into()),
        ("Referrer-Policy", "no-referrer".into()),
        ("Cross-Origin-Resource-Policy", "same-origin".into()),
    ]
}

/// That of an element's text, which is what browsers compare.
fn digest(element: &str) -> [u8; 32] {
    Sha256::digest(inside(element)).into()
}

fn inside(element: &str) -> &'static str {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let from = TEXT.split_once(&begin).map(|(_, rest)| rest);
    let text = from.and_then(|rest| rest.split_once(&end));
    text.expect("the page has one of each").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_nothing_from_elsewhere() {
        for element in ["style", "script"] {
            assert!(inside(element).len() > 1000);
            assert_eq!(TEXT.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        // Neither an address, nor what the policy would refuse, nor a way from text to markup.
        for absent in [
            "//cdn",
            "http:",
            "https:",
            "src=",
            " style=",
            " onclick=",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "localStorage",
        ] {
            assert!(!TEXT.contains(absent), "{absent}");
        }
        assert!(TEXT.len() <= SIZE_MAX, "{} bytes", TEXT.len());
    }

    #[test]
    fn the_policy_names_what_there_is() {
        let policy = policy();
        let of_page = ("Content-Security-Policy", policy.clone());
        assert!(fields(&policy).contains(&of_page));
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe") && !policy.contains('*'));
        assert_eq!(policy.matches("'sha256-").count(), 2);
    }

    /// It is in every binary.
    const SIZE_MAX: usize = 24 * 1024;
}
