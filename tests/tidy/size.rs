//! How long a file and a function may be, and how many parameters a function may take.

use std::ops::RangeInclusive;

use syn::{
    Attribute, Item,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::sources::{SourceFile, Sources};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// `self` is not one of them. What belongs together travels together.
const PARAMETERS_MAX: usize = 5;

/// Files that are too long, their inline tests not counted.
pub(crate) fn files(sources: &Sources) -> Vec<String> {
    let too_long = |file: &SourceFile| {
        let tests: usize = inline_tests(&file.syntax()).map(|lines| lines.count()).sum();
        let lines = file.text.lines().count() - tests;
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.path))
    };
    sources.rust().filter_map(too_long).collect()
}

/// Functions that are too long, their attributes and documentation not counted.
pub(crate) fn functions(sources: &Sources) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources.rust() {
        let mut lengths = Lengths { file: &file.path, complaints: &mut complaints };
        lengths.visit_file(&file.syntax());
    }
    complaints
}

/// Functions that take too many parameters.
pub(crate) fn parameters(sources: &Sources) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources.rust() {
        let mut parameters = Parameters { file: &file.path, complaints: &mut complaints };
        parameters.visit_file(&file.syntax());
    }
    complaints
}

fn inline_tests(file: &syn::File) -> impl Iterator<Item = RangeInclusive<usize>> {
    file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_some() && module.attrs.iter().any(is_cfg_test) => {
            Some(module.span().start().line..=module.span().end().line)
        }
        _ => None,
    })
}

pub(super) fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
}

struct Lengths<'a> {
    file: &'a str,
    complaints: &'a mut Vec<String>,
}

impl Lengths<'_> {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let start = signature.span().start().line;
        let lines = block.span().end().line - start + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            self.complaints
                .push(format!("{}:{start}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}", self.file));
        }
    }
}

impl<'ast> Visit<'ast> for Lengths<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

struct Parameters<'a> {
    file: &'a str,
    complaints: &'a mut Vec<String>,
}

impl<'ast> Visit<'ast> for Parameters<'_> {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let count = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_))).count();
        if count > PARAMETERS_MAX {
            let (name, line) = (&signature.ident, signature.span().start().line);
            self.complaints
                .push(format!("{}:{line}: `{name}` takes {count} parameters, at most {PARAMETERS_MAX}", self.file));
        }
        visit::visit_signature(self, signature);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_seen_and_its_tests_are_not() {
        let body = |lines: usize| "const _: () = ();\n".repeat(lines);
        let file = |text: &str| files(&Sources::sample(&[("a.rs", text)]));
        assert!(file(&body(FILE_LINES_MAX)).is_empty());
        assert_eq!(file(&body(FILE_LINES_MAX + 1)), ["a.rs: 501 lines, at most 500"]);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", body(FILE_LINES_MAX), body(100));
        assert!(file(&tested).is_empty());
        let untested = format!("{}#[cfg(unix)]\nmod posix {{\n{}}}\n", body(FILE_LINES_MAX), body(100));
        assert_eq!(file(&untested).len(), 1);
    }

    #[test]
    fn a_sixth_parameter_is_seen_wherever_it_stands_and_self_is_none() {
        let sample = |text: String| parameters(&Sources::sample(&[("a.rs", &text)])).len();
        for (head, tail) in [("fn f(", ") {}"), ("impl A { fn f(&self, ", ") {} }"), ("trait A { fn f(&self, ", "); }")]
        {
            let some = |count: usize| sample(format!("{head}{}{tail}", "_: u8, ".repeat(count)));
            assert_eq!((some(PARAMETERS_MAX), some(PARAMETERS_MAX + 1)), (0, 1), "{head}");
        }
    }

    #[test]
    fn a_long_function_is_seen_wherever_it_stands() {
        let body = |lines: usize| "    ();\n".repeat(lines);
        let sample = |head: &str, tail: &str, lines: usize| {
            functions(&Sources::sample(&[("a.rs", &format!("{head}{}{tail}", body(lines)))]))
        };
        for (head, tail) in [
            ("/// Doc.\nfn f() {\n", "}\n"),
            ("impl A {\nfn f() {\n", "}\n}\n"),
            ("trait A {\nfn f() {\n", "}\n}\n"),
            ("mod a {\nfn f() {\n", "}\n}\n"),
        ] {
            assert!(sample(head, tail, FUNCTION_LINES_MAX - 2).is_empty(), "{head}");
            assert_eq!(sample(head, tail, FUNCTION_LINES_MAX - 1).len(), 1, "{head}");
        }
    }
}
