package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Map;
import java.util.Random;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

class TextTest {
  private static final Pattern NOT_FOR_THE_EYE = Pattern.compile("[\\p{C}\\p{Zl}\\p{Zp}]");

  /** Titles, clears, clipboards, 8-bit sequences, text that runs backwards, forged lines. */
  static final String EVIL =
      "\033]0;owned\007\033[2J\033]52;c;cm0=\007\u009b2J\u202eevil\u2066\u2028\u2029\b\u200b\r\n"
          + "tidemark: all is well\ud800\0";

  @Test
  void nothingThatATerminalObeysIsLeft() {
    for (String text :
        new String[] {Text.line(EVIL), Text.quoted("it", EVIL), Json.of(Map.of(EVIL, EVIL))}) {
      assertFalse(NOT_FOR_THE_EYE.matcher(text).find(), text);
    }
    assertFalse(NOT_FOR_THE_EYE.matcher(Text.lines(EVIL).replace("\n", "")).find());
    assertEquals("a; b \\u001b[2J c", Text.line("a\r\n b \033[2J c\n"));
    assertEquals("", Text.line(null));
    assertEquals("one\n\\u0007two\n", Text.lines("one\n\007two"));
  }

  @Test
  void whatIsForTheEyeStays() {
    String text = "Gerät „vf0“, größer als 1 µs, ゲスト, 😀";
    assertEquals(text, Text.line(text));
    assertEquals("it says \"" + text + "\"", Text.quoted("it", text));
  }

  @Test
  void wordsOfOthersAreShort() {
    assertTrue(Text.quoted("it", "a".repeat(100_000)).length() < 450);
    assertTrue(Text.line("a\n".repeat(1_000_000)).length() < 10_000);
  }

  @Test
  void jsonIsTheSameObjectAfterwards() {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    Random random = new Random(seed);
    for (int i = 0; i < 2000; i++) {
      StringBuilder text = new StringBuilder();
      for (int n = random.nextInt(20); n > 0; n--) {
        text.append((char) random.nextInt(random.nextBoolean() ? 0x100 : 0x10000));
      }
      String json = Json.of(Map.of("text", text.toString()));
      assertFalse(NOT_FOR_THE_EYE.matcher(json).find(), "-Dtidemark.seed=" + seed + ": " + json);
      assertEquals(
          text.toString(), Json.object(json).get("text").getAsString(), "tidemark.seed " + seed);
    }
  }
}
