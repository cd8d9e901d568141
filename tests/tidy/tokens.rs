//! A Rust file as a flat run of words and signs: what a search for code wants to see, comments and strings left out.

use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

use super::sources::SourceFile;

/// One word, sign or bracket, and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The file's tokens in order, the insides of brackets included.
pub(crate) fn tokens(file: &SourceFile) -> Vec<Token> {
    let stream = TokenStream::from_str(&file.text).unwrap_or_else(|error| panic!("{}: not Rust: {error}", file.path));
    let mut found = Vec::new();
    flatten(stream, &mut found);
    found
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                into.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), into);
                into.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            other => into.push(Token { text: other.to_string(), line }),
        }
    }
}

/// The lines on which this run of tokens starts, written with a space between any two.
pub(crate) fn lines_of(tokens: &[Token], run: &str) -> Vec<usize> {
    let wanted: Vec<&str> = run.split(' ').collect();
    tokens
        .windows(wanted.len())
        .filter(|window| window.iter().zip(&wanted).all(|(token, wanted)| token.text == *wanted))
        .map(|window| window[0].line)
        .collect()
}

/// A complaint for each place in `file` where one of `runs` stands.
pub(crate) fn complain(file: &SourceFile, runs: &[(&str, &str)]) -> Vec<String> {
    let tokens = tokens(file);
    runs.iter()
        .flat_map(|(run, why)| lines_of(&tokens, run).into_iter().map(move |line| (line, *run, *why)))
        .map(|(line, run, why)| format!("{}:{line}: `{}`: {why}", file.path, run.replace(' ', "")))
        .collect()
}

#[test]
fn comments_and_strings_are_not_code() {
    use super::sources::Sources;
    let sample = Sources::sample(&[("a.rs", "// a::b\nconst X: &str = \"a::b\";\nfn f() {\n    g(a::b());\n}\n")]);
    let file = sample.file("a.rs").unwrap();
    assert_eq!(lines_of(&tokens(file), "a : : b"), [4]);
}
