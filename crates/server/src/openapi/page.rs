//! The document as one page, rendered here: no script, nothing from elsewhere, every text escaped.

use serde_json::Value;

pub(crate) const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; background: #fff }
h1, h2, h3 { line-height: 1.2 }
h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1rem }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #eaeef2 }
a { color: #0550ae }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 } h2, th, td { border-color: #30363d } a { color: #79c0ff }
}
";

/// Returns the page for `document`.
pub(crate) fn render(document: &Value) -> String {
    let mut page = Page(String::with_capacity(128 << 10));
    let title = text(at(document, "/info/title"));
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    page.text(&format!("{title}: the HTTP API"));
    page.raw("</title><link rel=\"stylesheet\" href=\"docs.css\"></head><body>\n<h1>");
    page.text(&format!("{title} {}", text(at(document, "/info/version"))));
    page.raw("</h1>\n<p>");
    page.text(text(at(document, "/info/description")));
    page.raw("</p>\n<p><a href=\"openapi.json\">openapi.json</a></p>\n");
    for (path, methods) in fields(at(document, "/paths")) {
        for (method, operation) in fields(methods) {
            page.operation(path, method, operation);
        }
    }
    page.raw("<h2 id=\"schemas\">Shapes</h2>\n");
    for (name, schema) in fields(at(document, "/components/schemas")) {
        page.schema(name, schema);
    }
    page.raw("</body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    /// Appends markup of this file, and nothing else.
    fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    fn text(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
    }

    fn code(&mut self, text: &str) {
        self.raw("<code>");
        self.text(text);
        self.raw("</code>");
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        self.raw("<h2 id=\"");
        self.text(text(at(operation, "/operationId")));
        self.raw("\">");
        self.code(&format!("{} {path}", method.to_ascii_uppercase()));
        self.raw("</h2>\n<p>");
        self.text(text(at(operation, "/summary")));
        self.raw("</p>\n");
        if let Some(more) = at(operation, "/description").as_str() {
            self.raw("<p>");
            self.text(more);
            self.raw("</p>\n");
        }
        let parameters = at(operation, "/parameters").as_array().map(Vec::as_slice).unwrap_or_default();
        self.table(
            "Parameters",
            parameters.iter().map(|one| {
                let name = format!("{} ({})", text(at(one, "/name")), text(at(one, "/in")));
                (name, at(one, "/schema"), text(at(one, "/description")))
            }),
        );
        for (kind, content) in fields(at(operation, "/requestBody/content")) {
            self.table("Body", [(kind.clone(), at(content, "/schema"), "")].into_iter());
        }
        let nothing = &Value::Null;
        self.table(
            "Answers",
            fields(at(operation, "/responses")).map(|(status, answer)| {
                let content =
                    fields(at(answer, "/content")).next().map_or(nothing, |(_, content)| at(content, "/schema"));
                (status.clone(), content, text(at(answer, "/description")))
            }),
        );
    }

    fn schema(&mut self, name: &str, schema: &Value) {
        self.raw("<h3 id=\"schema-");
        self.text(name);
        self.raw("\">");
        self.text(name);
        self.raw("</h3>\n<p>");
        self.text(text(at(schema, "/description")));
        self.raw("</p>\n");
        let parts = at(schema, "/allOf").as_array().or_else(|| at(schema, "/oneOf").as_array());
        for part in parts.into_iter().flatten().chain([schema]) {
            if part.get("$ref").is_some() {
                self.raw("<p>");
                self.kind(part);
                self.raw("</p>\n");
            }
            self.table(
                "Fields",
                fields(at(part, "/properties"))
                    .map(|(name, field)| (name.clone(), field, text(at(field, "/description")))),
            );
        }
    }

    fn table<'a>(&mut self, title: &'static str, rows: impl Iterator<Item = (String, &'a Value, &'a str)>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        self.raw("<table><tr><th>");
        self.raw(title);
        self.raw("</th><th></th><th></th></tr>\n");
        for (name, schema, description) in rows {
            self.raw("<tr><td>");
            self.code(&name);
            self.raw("</td><td>");
            self.kind(schema);
            self.raw("</td><td>");
            self.text(description);
            self.raw("</td></tr>\n");
        }
        self.raw("</table>\n");
    }

    /// A shape in a few words; one with a name is linked.
    fn kind(&mut self, schema: &Value) {
        if let Some(name) = at(schema, "/$ref").as_str().and_then(|address| address.rsplit('/').next()) {
            self.raw("<a href=\"#schema-");
            self.text(name);
            self.raw("\">");
            self.text(name);
            self.raw("</a>");
            return;
        }
        for (at, part) in ["oneOf", "anyOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten().enumerate()
        {
            if at > 0 {
                self.raw(" or ");
            }
            self.kind(part);
        }
        match at(schema, "/type") {
            Value::String(kind) => self.text(kind),
            Value::Array(kinds) => self.text(&kinds.iter().map(text).collect::<Vec<_>>().join(" or ")),
            _ => {}
        }
        if at(schema, "/items").is_object() {
            self.raw(" of ");
            self.kind(at(schema, "/items"));
        }
        for bound in ["minLength", "maxLength", "minimum", "maximum", "default", "pattern", "enum"] {
            if let Some(value) = schema.get(bound) {
                self.raw(" ");
                self.code(&format!("{bound} {value}"));
            }
        }
    }
}

fn at<'a>(value: &'a Value, place: &str) -> &'a Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_of_the_document_becomes_markup() {
        let evil = "<script>alert('1')</script>\"&";
        let page = render(&json!({
            "info": { "title": evil, "version": evil, "description": evil },
            "paths": { evil: { evil: {
                "operationId": evil, "summary": evil, "description": evil,
                "parameters": [{ "name": evil, "in": evil, "description": evil, "schema": { "type": evil, "pattern": evil } }],
                "requestBody": { "content": { evil: { "schema": { "$ref": evil } } } },
                "responses": { evil: { "description": evil, "content": { evil: { "schema": { "type": [evil] } } } } },
            } } },
            "components": { "schemas": { evil: { "description": evil, "properties": { evil: { "type": evil } } } } },
        }));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
        assert!(!page.to_lowercase().contains("<script") && !page.contains(evil));
        for foreign in ["http://", "https://", "style=", "onclick"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
