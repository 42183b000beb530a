package dev.tidemark.bench.cli;

import dev.tidemark.engine.migrate.Progress;
import dev.tidemark.ffm.Terminal;
import java.io.PrintStream;
import java.util.Locale;
import java.util.function.Consumer;
import java.util.function.IntSupplier;

/** A line per round; on a terminal the round under way updates in place. */
final class ProgressLine implements Consumer<Progress> {
  /** Columns of a terminal that nobody knows the width of. */
  private static final int COLUMNS = 80;

  private final PrintStream out;
  private final IntSupplier columns;
  private long roundStartBytes;
  private long roundStartNanos;
  private boolean open;

  /**
   * @param columns the terminal's width, asked for each line that is to be overwritten; null if it
   *     is no terminal
   */
  ProgressLine(PrintStream out, IntSupplier columns) {
    this.out = out;
    this.columns = columns;
  }

  /**
   * For a standard stream of this process.
   *
   * @param descriptor the stream's
   */
  static ProgressLine on(PrintStream out, int descriptor) {
    return new ProgressLine(
        out,
        Terminal.columns(descriptor).isEmpty()
            ? null
            : () -> columns(Terminal.columns(descriptor).orElse(0), System.getenv("COLUMNS")));
  }

  /**
   * @param asked what the terminal says; 0 if it does not know
   * @param environment what {@code COLUMNS} says; null for nothing
   */
  static int columns(int asked, String environment) {
    if (asked > 0) {
      return asked;
    }
    return environment != null && environment.matches("[1-9][0-9]{0,4}")
        ? Integer.parseInt(environment)
        : COLUMNS;
  }

  @Override
  public synchronized void accept(Progress progress) {
    switch (progress.phase()) {
      case HARVESTED -> {
        roundStartBytes = progress.bytesSent();
        roundStartNanos = progress.elapsedNanos();
      }
      case SENDING -> {
        if (columns != null) {
          String line = text(progress);
          // The last column stays free: a character there may wrap.
          int end = Math.min(line.length(), columns.getAsInt() - 1);
          out.print("\r" + line.substring(0, end) + "\033[K");
          out.flush();
          open = true;
        }
      }
      case ARRIVED -> end(text(progress));
      case STOPPED -> {
        if (progress.dirtyPages() >= 0 && roundStartNanos >= 0) {
          end(
              String.format(
                  Locale.ROOT,
                  "guest stopped after %.2f s: last %d pages, expected downtime %s",
                  progress.elapsedNanos() / 1e9,
                  progress.dirtyPages(),
                  millis(progress.expectedDowntimeNanos())));
          roundStartNanos = -1;
        }
      }
      default -> throw new AssertionError(progress.phase());
    }
  }

  private String text(Progress progress) {
    double seconds = (progress.elapsedNanos() - roundStartNanos) / 1e9;
    long bytes = progress.bytesSent() - roundStartBytes;
    return String.format(
        Locale.ROOT,
        "round %2d: %9s in %5.2f s, %9s/s, %8d dirty pages, sync %.1f ms, expected downtime %s",
        progress.round(),
        Units.size(bytes),
        seconds,
        Units.size(seconds > 0 ? bytes / seconds : 0),
        progress.dirtyPages(),
        progress.syncNanos() / 1e6,
        millis(progress.expectedDowntimeNanos()));
  }

  private static String millis(long nanos) {
    return nanos < 0 ? "not known yet" : nanos / 1_000_000 + " ms";
  }

  private void end(String line) {
    out.println((open ? "\r" : "") + line + (open ? "\033[K" : ""));
    out.flush();
    open = false;
  }

  /** Ends the line that is open, if one is, so that a message begins on a line of its own. */
  synchronized void end() {
    if (open) {
      out.println();
      out.flush();
      open = false;
    }
  }
}
