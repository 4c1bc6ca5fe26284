//! How text is parsed: the parser's generic dialect, with JSON operators as in PostgreSQL and queries that
//! begin with FROM.
//!
//! The generic dialect (sqlparser 0.62) reads `data ->> 'a' = 'b'` as `data ->> ('a' = 'b')`. Here `->` and
//! `->>` bind closer than every operator but `::`, also closer than `||` and `+`, whose right side is never
//! a member's name.

use crate::forward::forward;
use datafusion::sql::sqlparser::{
    ast::{
        Expr, Select, SelectFlavor, SelectItem, Statement, UnaryOperator, VisitMut, VisitorMut,
        WildcardAdditionalOptions,
    },
    dialect::{Dialect, GenericDialect},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};
use std::{any::TypeId, convert::Infallible, ops::ControlFlow};

/// Between `::` (50) and the operators of arithmetic (40) of the generic dialect.
const JSON_PRECEDENCE: u8 = 45;

/// The grammar of statements.
#[derive(Debug, Default)]
pub struct Grammar {
    inner: GenericDialect,
}

impl Dialect for Grammar {
    // The parser asks which dialect it has: this one is the generic one to it.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow => Some(Ok(JSON_PRECEDENCE)),
            _ => None,
        }
    }

    // To the parser a sign is the negation of all that binds closer than `*`, so of `1 ->> 'a'` in
    // `data -> -1 ->> 'a'`, where it is the sign of the number.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let is_index = matches!(parser.peek_nth_token_ref(0).token, Token::Minus)
            && matches!(parser.peek_nth_token_ref(1).token, Token::Number(..))
            && matches!(parser.peek_nth_token_ref(2).token, Token::Arrow | Token::LongArrow);
        if !is_index {
            return None;
        }
        parser.next_token();
        let number = parser.parse_number_value();
        Some(number.map(|number| Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: Box::new(Expr::Value(number)),
        }))
    }

    // Every method that the generic dialect has of its own.
    forward! {
        fn is_delimited_identifier_start(&self, ch: char) -> bool;
        fn is_identifier_start(&self, ch: char) -> bool;
        fn is_identifier_part(&self, ch: char) -> bool;
        fn supports_unicode_string_literal(&self) -> bool;
        fn supports_partition_by_after_order_by(&self) -> bool;
        fn supports_array_join_syntax(&self) -> bool;
        fn supports_group_by_expr(&self) -> bool;
        fn supports_group_by_with_modifier(&self) -> bool;
        fn supports_left_associative_joins_without_parens(&self) -> bool;
        fn supports_connect_by(&self) -> bool;
        fn supports_match_recognize(&self) -> bool;
        fn supports_pipe_operator(&self) -> bool;
        fn supports_start_transaction_modifier(&self) -> bool;
        fn supports_window_function_null_treatment_arg(&self) -> bool;
        fn supports_dictionary_syntax(&self) -> bool;
        fn supports_window_clause_named_window_reference(&self) -> bool;
        fn supports_parenthesized_set_variables(&self) -> bool;
        fn supports_select_wildcard_except(&self) -> bool;
        fn support_map_literal_syntax(&self) -> bool;
        fn allow_extract_custom(&self) -> bool;
        fn allow_extract_single_quotes(&self) -> bool;
        fn supports_extract_comma_syntax(&self) -> bool;
        fn supports_create_view_comment_syntax(&self) -> bool;
        fn supports_parens_around_table_factor(&self) -> bool;
        fn supports_values_as_table_factor(&self) -> bool;
        fn supports_create_index_with_clause(&self) -> bool;
        fn supports_explain_with_utility_options(&self) -> bool;
        fn supports_limit_comma(&self) -> bool;
        fn supports_update_order_by(&self) -> bool;
        fn supports_from_first_select(&self) -> bool;
        fn supports_projection_trailing_commas(&self) -> bool;
        fn supports_asc_desc_in_column_definition(&self) -> bool;
        fn supports_try_convert(&self) -> bool;
        fn supports_bitwise_shift_operators(&self) -> bool;
        fn supports_comment_on(&self) -> bool;
        fn supports_load_extension(&self) -> bool;
        fn supports_named_fn_args_with_assignment_operator(&self) -> bool;
        fn supports_struct_literal(&self) -> bool;
        fn supports_empty_projections(&self) -> bool;
        fn supports_nested_comments(&self) -> bool;
        fn supports_multiline_comment_hints(&self) -> bool;
        fn supports_user_host_grantee(&self) -> bool;
        fn supports_string_escape_constant(&self) -> bool;
        fn supports_array_typedef_with_brackets(&self) -> bool;
        fn supports_match_against(&self) -> bool;
        fn supports_set_names(&self) -> bool;
        fn supports_comma_separated_set_assignments(&self) -> bool;
        fn supports_filter_during_aggregation(&self) -> bool;
        fn supports_select_wildcard_exclude(&self) -> bool;
        fn supports_data_type_signed_suffix(&self) -> bool;
        fn supports_interval_options(&self) -> bool;
        fn supports_quote_delimited_string(&self) -> bool;
        fn supports_select_wildcard_replace(&self) -> bool;
        fn supports_select_wildcard_ilike(&self) -> bool;
        fn supports_select_wildcard_rename(&self) -> bool;
        fn supports_optimize_table(&self) -> bool;
        fn supports_install(&self) -> bool;
        fn supports_detach(&self) -> bool;
        fn supports_prewhere(&self) -> bool;
        fn supports_with_fill(&self) -> bool;
        fn supports_limit_by(&self) -> bool;
        fn supports_interpolate(&self) -> bool;
        fn supports_settings(&self) -> bool;
        fn supports_select_format(&self) -> bool;
        fn supports_comment_optimizer_hint(&self) -> bool;
        fn supports_constraint_keyword_without_name(&self) -> bool;
        fn supports_key_column_option(&self) -> bool;
        fn supports_comma_separated_trim(&self) -> bool;
        fn supports_cte_without_as(&self) -> bool;
        fn supports_select_item_multi_column_alias(&self) -> bool;
        fn supports_xml_expressions(&self) -> bool;
    }
}

/// Words that begin a clause in other dialects, and that are names of columns here.
const NAMES: [Keyword; 6] = [
    Keyword::ANALYZE,
    Keyword::CLUSTER,
    Keyword::DISTRIBUTE,
    Keyword::SORT,
    Keyword::TOP,
    Keyword::VIEW,
];

/// Lets such a word behind a comma be a name: the parser would take the comma for the last of a select list
/// that may end with one.
pub fn name_after_commas(tokens: &mut [TokenWithSpan]) {
    let places: Vec<usize> =
        (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).collect();
    for (nth, at) in places.iter().enumerate().skip(1) {
        let follows_comma = tokens[places[nth - 1]].token == Token::Comma;
        let next = places.get(nth + 1).map(|next| &tokens[*next].token);
        let begins_clause = matches!(next, Some(Token::Word(word)) if word.keyword == Keyword::BY);
        if let Token::Word(word) = &mut tokens[*at].token
            && follows_comma
            && !begins_clause
            && NAMES.contains(&word.keyword)
        {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// Writes `FROM t` as `SELECT * FROM t`.
pub fn select_all(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut FromVisitor);
}

struct FromVisitor;

impl VisitorMut for FromVisitor {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        if select.flavor == SelectFlavor::FromFirstNoSelect {
            select.flavor = SelectFlavor::Standard;
            select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::BinaryOperator;

    fn parsed(text: &str) -> Expr {
        let grammar = Grammar::default();
        let parser = Parser::new(&grammar).try_with_sql(text);
        parser.and_then(|mut parser| parser.parse_expr()).unwrap()
    }

    #[test]
    fn operators_of_json_bind_closer_than_comparisons() {
        for text in ["d ->> 'a' = 'b'", "'b' <> d -> 'a'", "d -> 'a' ->> 'b' >= $1"] {
            let Expr::BinaryOp { op, .. } = parsed(text) else { panic!("{text}") };
            let is_json = matches!(op, BinaryOperator::Arrow | BinaryOperator::LongArrow);
            assert!(!is_json, "{text}: {op}");
        }
        for text in ["d ->> 'a' IS NULL", "d ->> 'a' LIKE 'x%'", "d ->> 'a' IN ('x')"] {
            assert!(!matches!(parsed(text), Expr::BinaryOp { .. }), "{text}");
        }
        let Expr::BinaryOp { left, op, .. } = parsed("d -> 'a' ->> 0") else { panic!() };
        assert_eq!(op, BinaryOperator::LongArrow);
        assert!(matches!(*left, Expr::BinaryOp { op: BinaryOperator::Arrow, .. }));
    }

    #[test]
    fn the_sign_of_an_index_is_part_of_it() {
        let Expr::BinaryOp { op, right, .. } = parsed("d -> -1 ->> 'a'") else { panic!() };
        assert_eq!(op, BinaryOperator::LongArrow);
        assert!(matches!(*right, Expr::Value(_)));
    }

    #[test]
    fn a_cast_binds_closer_than_operators_of_json() {
        let Expr::BinaryOp { right, .. } = parsed("d ->> 'a'::text") else { panic!() };
        assert!(matches!(*right, Expr::Cast { .. }));
    }
}
