//! The names of all spans but those of HTTP requests, which are called after method and route. docs/OBSERVABILITY.md lists them; a test
//! compares.

/// A kind of span.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanName {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it is, for people.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with the documentation"))]
    pub(super) help: &'static str,
}

macro_rules! catalogue {
    ($($constant:ident: $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: SpanName = SpanName { name: $name, help: $help };)*
        /// All of them, in the order of this file.
        #[cfg(test)]
        pub(super) const ALL: &[SpanName] = &[$($constant),*];
    };
}

catalogue! {
    CLIENT_QUEUE: "client.queue" "From the kernel's receipt of an answer to the runner's reading it; child of the runner's span.";
    HTTP_QUEUE: "http.queue" "From the kernel's receipt of a request to its handler; child of the request.";
    MESH_GET: "mesh.get" "The mesh's part of a GET; child of the request.";
    MESH_SET: "mesh.set" "The mesh's part of a SET; child of the request.";
    MESH_DELETE: "mesh.delete" "The mesh's part of a DELETE; child of the request.";
    MESH_LEG: "mesh.leg" "What one owner was asked, and how that ended; child of the operation.";
    MESH_SERVE: "mesh.serve" "The other end of a leg, at the peer; child of the leg.";
    GOSSIP_ROUND: "gossip.round" "The probes that a node sent together.";
    GOSSIP_PROBE: "gossip.probe" "One of them: how its peer answered; child of the round.";
    REPAIR_ROUND: "repair.round" "A comparison with a peer, and what was taken from it.";
    HINTS_REPLAY: "hints.replay" "What a peer had missed, sent to it.";
    MEMBER_ALIVE: "member.alive" "A member joined or came back, as this node learnt it.";
    MEMBER_SUSPECT: "member.suspect" "A member did not answer.";
    MEMBER_DEAD: "member.dead" "A suspicion was not refuted in time.";
    MEMBER_LEFT: "member.left" "A member has left: it was stopped.";
    FAULT_KILL: "fault.kill" "A fault ordered by POST /kill: from the order to its execution, told before it strikes.";
    FAULT_LINK: "fault.link" "A fault of the network ordered by POST /fault: how long it lasts unless it is ended before.";
    FAULT_SLOW: "fault.slow" "A node slowed down by POST /fault.";
    FAULT_CLOCK: "fault.clock" "A clock set off by POST /fault.";
    FAULT_INJECTED: "fault.injected" "A fault ordered by POST /fault, from its beginning to its end.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = ALL.iter().map(|span| span.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn the_documentation_lists_them_all_and_no_others() {
        let text = include_str!("../../../docs/OBSERVABILITY.md");
        let section = text.split("\n## ").find(|section| section.starts_with("Spans\n")).unwrap_or_default();
        let written: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted: Vec<String> = ALL.iter().map(|span| format!("| `{}` | {} |", span.name, span.help)).collect();
        assert_eq!(written, wanted, "docs/OBSERVABILITY.md should say:\n{}", wanted.join("\n"));
    }
}
