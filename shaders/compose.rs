//! The build-time composer: joins shader parts and unrolls the loops that the sources mark.
//!
//! The sources are WGSL plus two marks that vanish here:
//! * `unroll for (var i = A; i < B; i++) { body }` is written out for each value of `i`, each in braces of its own;
//! * `static if (A == B) { body } else { body }` keeps one of its sides.
//!
//! Bounds, conditions and every index `[...]` made of numbers are evaluated here (`u32` arithmetic, an error on
//! overflow or on anything that is not a number). Reason: arrays indexed at run time by a loop counter live in memory
//! on most drivers, and are slow or worse; constant indices become registers. Invariant: the output has no mark left.

/// What went wrong, with the text it went wrong at.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Expands every mark in `source`.
pub(crate) fn expand(source: &str) -> Result<String> {
    let mut out = String::with_capacity(source.len() * 4);
    let mut rest = source;
    loop {
        let unroll = rest.find("unroll for (");
        let choice = rest.find("static if (");
        match (unroll, choice) {
            (None, None) => {
                out.push_str(&fold_indices(rest));
                return Ok(out);
            }
            (Some(at), other) if other.is_none_or(|o| at < o) => {
                out.push_str(&fold_indices(&rest[..at]));
                let (head, after) = balanced(&rest[at + "unroll for ".len()..], '(', ')')?;
                let (name, first, end) = loop_head(head)?;
                let (body, after) = balanced(after.trim_start(), '{', '}')?;
                for value in first..end {
                    out.push('{');
                    out.push_str(&expand(&substitute(body, name, value))?);
                    out.push('}');
                }
                rest = after;
            }
            (_, Some(at)) => {
                out.push_str(&fold_indices(&rest[..at]));
                let (condition, after) = balanced(&rest[at + "static if ".len()..], '(', ')')?;
                let (then_body, after) = balanced(after.trim_start(), '{', '}')?;
                let (else_body, after) = match after.trim_start().strip_prefix("else ") {
                    Some(tail) => balanced(tail.trim_start(), '{', '}')?,
                    None => ("", after),
                };
                out.push_str(&expand(if holds(condition)? { then_body } else { else_body })?);
                rest = after;
            }
            (Some(_), None) => return Err("unreachable: an unroll without a place".into()),
        }
    }
}

/// Splits `(inside)rest` at the bracket that closes the first one.
fn balanced(text: &str, open: char, close: char) -> Result<(&str, &str)> {
    if !text.starts_with(open) {
        return Err(format!("expected {open} at: {}", head(text)));
    }
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Ok((&text[1..at], &text[at + 1..]));
            }
        }
    }
    Err(format!("{open} is never closed: {}", head(text)))
}

fn head(text: &str) -> String {
    text.chars().take(60).collect()
}

/// `var i = A; i < B; i++` as (name, A, B).
fn loop_head(text: &str) -> Result<(&str, u32, u32)> {
    let bad = || format!("a loop to unroll reads `var i = A; i < B; i++`, got: {text}");
    let mut parts = text.split(';');
    let (Some(init), Some(test), Some(step), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad());
    };
    let (name, first) = init.trim().strip_prefix("var ").and_then(|t| t.split_once('=')).ok_or_else(bad)?;
    let name = name.trim();
    let end = test.trim().strip_prefix(name).and_then(|t| t.trim().strip_prefix('<')).ok_or_else(bad)?;
    if step.trim() != format!("{name}++") {
        return Err(bad());
    }
    Ok((name, number(first)?, number(end)?))
}

/// Replaces the identifier `name` by a number.
fn substitute(body: &str, name: &str, value: u32) -> String {
    let mut out = String::with_capacity(body.len());
    let mut word = String::new();
    for c in body.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if word == name {
            out.push_str(&format!("{value}u"));
        } else {
            out.push_str(&word);
        }
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// Evaluates the content of every `[...]` that is made of numbers only.
fn fold_indices(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        if let Some(end) = rest.find(['[', ']'])
            && rest.as_bytes()[end] == b']'
            && let Ok(value) = number(&rest[..end])
        {
            out.push_str(&format!("{value}u"));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

fn holds(condition: &str) -> Result<bool> {
    for (sign, test) in [
        ("==", u32::eq as fn(&u32, &u32) -> bool),
        ("!=", u32::ne),
        ("<=", u32::le),
        (">=", u32::ge),
        ("<", u32::lt),
        (">", u32::gt),
    ] {
        if let Some((left, right)) = condition.split_once(sign) {
            return Ok(test(&number(left)?, &number(right)?));
        }
    }
    Err(format!("a static condition compares two numbers, got: {condition}"))
}

/// Evaluates `+ - * / %` and parentheses over decimal `u32` literals.
fn number(text: &str) -> Result<u32> {
    let mut parser = Parser { text: text.as_bytes(), at: 0 };
    let value = parser.sum()?;
    parser.space();
    if parser.at == parser.text.len() { Ok(value) } else { Err(format!("not a number: {text}")) }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn sign(&mut self, signs: &[u8]) -> Option<u8> {
        self.space();
        let c = *self.text.get(self.at)?;
        signs.contains(&c).then(|| {
            self.at += 1;
            c
        })
    }

    fn sum(&mut self) -> Result<u32> {
        let mut value = self.product()?;
        while let Some(sign) = self.sign(b"+-") {
            let right = self.product()?;
            let result = if sign == b'+' { value.checked_add(right) } else { value.checked_sub(right) };
            value = result.ok_or_else(|| format!("{value} {} {right} does not fit u32", char::from(sign)))?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<u32> {
        let mut value = self.atom()?;
        while let Some(sign) = self.sign(b"*/%") {
            let right = self.atom()?;
            let result = match sign {
                b'*' => value.checked_mul(right),
                b'/' => value.checked_div(right),
                _ => value.checked_rem(right),
            };
            value = result.ok_or_else(|| format!("{value} {} {right} does not fit u32", char::from(sign)))?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<u32> {
        if self.sign(b"(").is_some() {
            let value = self.sum()?;
            return self.sign(b")").map(|_| value).ok_or_else(|| "a parenthesis is never closed".into());
        }
        self.space();
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[start..self.at]).map_err(|e| e.to_string())?;
        if self.text.get(self.at) == Some(&b'u') {
            self.at += 1;
        }
        digits.parse().map_err(|_| format!("not a number: {}", String::from_utf8_lossy(self.text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_loop_is_written_out_with_folded_indices() {
        let out = expand("unroll for (var i = 1u; i < 3u; i++) { r[2u * i] = x[i - 1u] + y[j]; }");
        assert_eq!(out.as_deref(), Ok("{ r[2u] = x[0u] + y[j]; }{ r[4u] = x[1u] + y[j]; }"));
    }

    #[test]
    fn a_static_choice_keeps_one_side_and_nests_in_loops() {
        let text =
            "unroll for (var i = 0u; i < 2u; i++) { static if (i % 2u == 1u) { odd(i); } else { even(i); } }";
        let out = expand(text).expect("valid").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(out, "{ even(0u); }{ odd(1u); }");
    }

    #[test]
    fn what_is_not_a_number_is_refused_with_its_text() {
        assert!(
            expand("unroll for (var i = 0u; i < n; i++) { x; }").is_err_and(|e| e.contains("not a number"))
        );
        assert!(expand("static if (1u - 2u == 0u) { x; }").is_err_and(|e| e.contains("does not fit")));
        assert!(
            expand("unroll for (var i = 0u; i < 2u; i++) { x;").is_err_and(|e| e.contains("never closed"))
        );
    }
}
