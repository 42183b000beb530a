package dev.tidemark.bench.cli;

import java.util.HexFormat;
import java.util.stream.Collectors;

/**
 * Texts that came from elsewhere (the other side of a connection, sysfs, an exception's message) in
 * a form that a terminal shows and never obeys.
 */
final class Text {
  /** Maximum length of another's words, in characters: a few lines of a terminal. */
  private static final int MAX_QUOTED = 400;

  /** Maximum length of a whole message, in characters. */
  private static final int MAX_MESSAGE = 4000;

  private static final HexFormat HEX = HexFormat.of();

  private Text() {}

  /**
   * One line without control, formatting, private and unassigned characters: each becomes {@code
   * \}{@code uXXXX}. Line breaks become semicolons, and a text of more than 4000 characters is cut.
   *
   * @param text null for nothing
   */
  static String line(String text) {
    return text == null ? "" : line(text, MAX_MESSAGE);
  }

  /** As {@link #line}, in quotes, cut after 400 characters, with the name of who says it. */
  static String quoted(String speaker, String text) {
    return speaker + " says \"" + line(text == null ? "" : text, MAX_QUOTED) + "\"";
  }

  /** Several lines, each with what is not for the eye escaped. */
  static String lines(String text) {
    return text.lines().map(line -> escaped(line) + "\n").collect(Collectors.joining());
  }

  private static String line(String text, int maxChars) {
    // Cut first: the rest of the work is bounded then, whatever the length.
    String shorter = text.length() <= maxChars ? text : text.substring(0, maxChars - 3) + "...";
    return escaped(shorter.strip().replaceAll("\\s*\\R\\s*", "; "));
  }

  /** The text with each character that is not for the eye as {@code \}{@code uXXXX}. */
  static String escaped(String text) {
    if (text.codePoints().allMatch(Text::isShown)) {
      return text;
    }
    StringBuilder escaped = new StringBuilder();
    text.codePoints()
        .forEach(
            c -> {
              if (isShown(c)) {
                escaped.appendCodePoint(c);
              } else {
                for (char unit : Character.toChars(c)) {
                  escaped.append("\\u").append(HEX.toHexDigits(unit));
                }
              }
            });
    return escaped.toString();
  }

  private static boolean isShown(int codePoint) {
    return switch (Character.getType(codePoint)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.PRIVATE_USE,
          Character.UNASSIGNED,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR ->
          false;
      default -> true;
    };
  }
}
