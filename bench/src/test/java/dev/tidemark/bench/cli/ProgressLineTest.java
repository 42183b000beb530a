package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.migrate.Progress;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ProgressLineTest {
  private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
  private final PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8);

  private static Progress progress(Progress.Phase phase) {
    return new Progress(
        phase, 1, 262144, 53760, 0, 220_200_960, 63_000_000, -1, 13_000_000, 3_480_000_000L);
  }

  private String printed() {
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 20, 79, 80, 112, 200})
  void whatIsOverwrittenFitsTheTerminal(int columns) {
    ProgressLine line = new ProgressLine(out, () -> columns);
    line.accept(progress(Progress.Phase.HARVESTED));
    line.accept(progress(Progress.Phase.SENDING));
    String open = printed().replaceFirst("^\r", "").replaceFirst("\033\\[K$", "");
    assertEquals(Math.min(columns - 1, 110), Math.min(open.length(), 110), open);
  }

  @Test
  void theTerminalKnowsItsWidthBetterThanTheEnvironment() {
    assertEquals(100, ProgressLine.columns(100, "60"));
    assertEquals(60, ProgressLine.columns(0, "60"));
    for (String nonsense : new String[] {null, "", "0", "-1", "many", "99999999999", "1e2"}) {
      assertEquals(80, ProgressLine.columns(0, nonsense));
    }
  }

  @Test
  void anOpenLineEndsBeforeAMessage() {
    ProgressLine line = new ProgressLine(out, () -> 80);
    line.end();
    assertEquals("", printed());
    line.accept(progress(Progress.Phase.SENDING));
    line.end();
    line.end();
    assertTrue(printed().endsWith("\033[K" + System.lineSeparator()), printed());
    assertEquals(1, printed().lines().filter(text -> !text.isEmpty()).count(), printed());
  }

  @Test
  void withoutATerminalNothingIsOverwritten() {
    ProgressLine line = new ProgressLine(out, null);
    line.accept(progress(Progress.Phase.HARVESTED));
    line.accept(progress(Progress.Phase.SENDING));
    line.accept(progress(Progress.Phase.ARRIVED));
    assertFalse(printed().contains("\r") || printed().contains("\033"), printed());
  }
}
