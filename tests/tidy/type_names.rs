//! One name, one type: a reader who meets a type's name need not ask which one is meant.

use std::collections::BTreeMap;

use syn::{Attribute, Ident, Item};

use super::{modules, size::is_cfg_test, sources::Sources};

/// Each program has its own of these.
const OF_PROGRAMS: &[&str] = &["Flags", "Settings"];

/// Types that share their name with another one; tests, and stand-ins for other systems, aside.
pub(crate) fn shared(sources: &Sources) -> Vec<String> {
    let product = modules::product(sources);
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources.rust().filter(|file| product.contains(&file.path)) {
        types(&file.syntax().items, &mut |name| {
            let place = format!("{}:{}", file.path, name.span().start().line);
            places.entry(name.to_string()).or_default().push(place);
        });
    }
    let twice = places.into_iter().filter(|(name, places)| places.len() > 1 && !OF_PROGRAMS.contains(&&name[..]));
    twice.map(|(name, places)| format!("`{name}` names several types: {}", places.join(", "))).collect()
}

fn types(items: &[Item], tell: &mut impl FnMut(&Ident)) {
    for item in items {
        let (name, attributes) = match item {
            Item::Struct(item) => (&item.ident, &item.attrs),
            Item::Enum(item) => (&item.ident, &item.attrs),
            Item::Union(item) => (&item.ident, &item.attrs),
            Item::Trait(item) => (&item.ident, &item.attrs),
            Item::Type(item) => (&item.ident, &item.attrs),
            Item::Mod(module) if !module.attrs.iter().any(is_cfg_test) => {
                types(module.content.as_ref().map_or(&[], |(_, items)| items), tell);
                continue;
            }
            _ => continue,
        };
        if !attributes.iter().any(is_conditional) {
            tell(name);
        }
    }
}

fn is_conditional(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_seen() {
        let shared = |files: &[(&str, &str)]| shared(&Sources::sample(files));
        let (a, b) = ("struct Queue;\nmod b;\n", "\npub(crate) enum Queue {}\n");
        assert_eq!(
            shared(&[("services/a/src/lib.rs", a), ("services/a/src/b.rs", b)]),
            ["`Queue` names several types: services/a/src/lib.rs:1, services/a/src/b.rs:2"]
        );
        assert_eq!(shared(&[("a/src/lib.rs", &format!("{a}mod m {{ trait Queue {{}} }}"))]).len(), 1);
        assert_eq!(shared(&[("a/src/lib.rs", a), ("b/src/lib.rs", b)]).len(), 1);
        // A program's own, an integration test, a test's module, an alternative for another system.
        let settings = "struct Settings;";
        assert!(shared(&[("a/src/main.rs", settings), ("b/src/main.rs", settings)]).is_empty());
        assert!(shared(&[("a/src/lib.rs", a), ("a/tests/b.rs", b)]).is_empty());
        assert!(shared(&[("a/src/lib.rs", &format!("{a}#[cfg(test)]\nmod m {{ struct Queue; }}"))]).is_empty());
        assert!(shared(&[("a/src/lib.rs", &format!("{a}#[cfg(test)]\nmod m;")), ("a/src/m.rs", b)]).is_empty());
        let nested =
            [("a/src/lib.rs", "mod q;"), ("a/src/q.rs", "struct Queue;\n#[cfg(test)]\nmod m;"), ("a/src/q/m.rs", b)];
        assert!(shared(&nested).is_empty());
        assert!(shared(&[("a/src/lib.rs", &format!("#[cfg(unix)]\n{a}")), ("a/src/b.rs", b)]).is_empty());
    }
}
