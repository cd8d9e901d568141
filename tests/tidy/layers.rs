//! Who may depend on whom. Direct edges between our own crates are listed one by one; libraries are looked for in
//! everything that a crate reaches, so that one cannot slip in behind another.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use super::sources::Sources;

/// Our crates, and which of our crates each may name. The arrows of the architecture, and nothing else.
const MEMBERS: &[(&str, &[&str])] = &[
    ("mesh-bench", &[]),
    ("mesh-cache-proto", &[]),
    ("mesh-cache", &["mesh-cache-proto", "receive-timestamps"]),
    ("mesh-sim", &["mesh-cache", "mesh-cache-proto"]),
    ("settings", &[]),
    ("receive-timestamps", &[]),
    ("mesh-settings", &["mesh-cache", "mesh-cache-proto", "settings"]),
    ("observability", &["mesh-cache-proto", "settings"]),
    ("load", &["settings"]),
    ("node", &["mesh-cache", "mesh-cache-proto", "mesh-settings", "observability", "receive-timestamps", "settings"]),
    ("runner", &["load", "observability", "receive-timestamps", "settings"]),
    ("budgets", &[]),
    ("direct-runner", &["load", "mesh-cache", "mesh-cache-proto", "mesh-settings", "settings"]),
];

/// What a crate must not reach, even through others. A trailing `*` stands for any ending.
const OUT_OF_REACH: &[(&str, &[&str])] = &[
    (
        "mesh-cache-proto",
        &["tokio*", "mio", "socket2", "quinn*", "axum*", "hyper*", "opentelemetry*", "tracing*", "metrics*"],
    ),
    (
        "mesh-cache",
        &["axum*", "hyper*", "opentelemetry*", "tracing-opentelemetry", "metrics*", "prometheus*", "observability"],
    ),
    ("load", &["mesh-cache", "mesh-cache-proto", "quinn*", "axum*", "opentelemetry*", "metrics*"]),
    ("observability", &["mesh-cache", "load", "axum*"]),
    ("runner", &["mesh-cache", "quinn*", "axum*"]),
];

/// Packages and what they depend on, dependencies of tests left out.
#[derive(Debug, Default)]
pub(crate) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// As cargo resolves it for this machine.
    pub(crate) fn of_workspace() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let version = Command::new(&cargo).arg("-vV").output().expect("cargo runs");
        let version = String::from_utf8(version.stdout).expect("cargo writes UTF-8");
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Self::parse(&serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON"))
    }

    fn parse(metadata: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let mut graph = Self::default();
        for node in list(&metadata["resolve"]["nodes"]) {
            let edges = graph.0.entry(names[&text(&node["id"])].clone()).or_default();
            for edge in list(&node["deps"]) {
                if list(&edge["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev") {
                    edges.insert(names[&text(&edge["pkg"])].clone());
                }
            }
        }
        graph
    }

    fn edges(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Everything that `name` reaches, each with the path that leads there.
    fn reach(&self, name: &str) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::from([(name.to_owned(), name.to_owned())]);
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            for edge in self.edges(&next) {
                if !paths.contains_key(edge) {
                    paths.insert(edge.to_owned(), format!("{} -> {edge}", paths[&next]));
                    open.push(edge.to_owned());
                }
            }
        }
        paths
    }
}

/// Edges between our own crates that are not in [`MEMBERS`], and crates that are missing from it.
pub(crate) fn members_one_way(graph: &Graph) -> Vec<String> {
    let mut complaints = Vec::new();
    for (member, allowed) in MEMBERS {
        if !graph.0.contains_key(*member) {
            complaints.push(format!("there is no crate `{member}`: take it off the list in tests/tidy/layers.rs"));
        }
        let ours = graph.edges(member).filter(|edge| MEMBERS.iter().any(|(other, _)| other == edge));
        let wrong = ours.filter(|edge| !allowed.contains(edge));
        complaints.extend(wrong.map(|edge| format!("`{member}` must not depend on `{edge}`")));
    }
    complaints
}

/// Libraries that a crate reaches and must not.
pub(crate) fn forbidden_reach(graph: &Graph) -> Vec<String> {
    let banned = |name: &str, ban: &str| ban.strip_suffix('*').map_or(name == ban, |start| name.starts_with(start));
    let mut complaints = Vec::new();
    for (member, bans) in OUT_OF_REACH {
        for (name, path) in graph.reach(member) {
            if bans.iter().any(|ban| banned(&name, ban)) {
                complaints.push(format!("`{member}` must not know `{name}`: {path}"));
            }
        }
    }
    complaints
}

/// Crates that do not take the workspace's lints.
pub(crate) fn lints_inherited(sources: &Sources) -> Vec<String> {
    let manifests = sources.all().filter(|file| file.path.ends_with("Cargo.toml"));
    manifests
        .filter(|file| {
            let manifest: toml::Table = file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path));
            let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
            inherits.and_then(toml::Value::as_bool) != Some(true)
        })
        .map(|file| format!("{}: add `[lints]` with `workspace = true`", file.path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut graph = Graph(MEMBERS.iter().map(|(name, _)| ((*name).to_owned(), BTreeSet::new())).collect());
        graph.0.extend(edges.iter().map(|(name, to)| ((*name).to_owned(), owned(to))));
        graph
    }

    #[test]
    fn an_arrow_against_the_grain_is_seen() {
        assert!(members_one_way(&graph(&[("mesh-cache", &["mesh-cache-proto"])])).is_empty());
        let complaints = members_one_way(&graph(&[("mesh-cache-proto", &["mesh-cache"]), ("load", &["mesh-cache"])]));
        assert_eq!(
            complaints,
            ["`mesh-cache-proto` must not depend on `mesh-cache`", "`load` must not depend on `mesh-cache`"]
        );
    }

    #[test]
    fn a_library_behind_a_library_is_seen() {
        assert!(forbidden_reach(&graph(&[("mesh-cache-proto", &["bytes"])])).is_empty());
        let complaints = forbidden_reach(&graph(&[("mesh-cache-proto", &["bytes"]), ("bytes", &["tokio-util"])]));
        assert_eq!(
            complaints,
            ["`mesh-cache-proto` must not know `tokio-util`: mesh-cache-proto -> bytes -> tokio-util"]
        );
    }

    #[test]
    fn dependencies_of_tests_do_not_count() {
        let metadata = serde_json::json!({
            "packages": [{"id": "1", "name": "mesh-cache"}, {"id": "2", "name": "axum"}, {"id": "3", "name": "bytes"}],
            "resolve": {"nodes": [{"id": "1", "deps": [
                {"pkg": "2", "dep_kinds": [{"kind": "dev"}]},
                {"pkg": "3", "dep_kinds": [{"kind": null}]},
            ]}]},
        });
        assert_eq!(Graph::parse(&metadata).edges("mesh-cache").collect::<Vec<_>>(), ["bytes"]);
    }

    #[test]
    fn a_crate_without_the_lints_is_seen() {
        let good = ("a/Cargo.toml", "[lints]\nworkspace = true\n");
        assert!(lints_inherited(&Sources::sample(&[good])).is_empty());
        assert_eq!(lints_inherited(&Sources::sample(&[good, ("b/Cargo.toml", "[package]\n")])).len(), 1);
    }
}
