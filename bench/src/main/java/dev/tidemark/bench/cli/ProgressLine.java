package dev.tidemark.bench.cli;

import dev.tidemark.engine.migrate.Progress;
import java.io.PrintStream;
import java.util.Locale;
import java.util.function.Consumer;

/** A line per round; on a terminal the round under way updates in place. */
final class ProgressLine implements Consumer<Progress> {
  private final PrintStream out;
  private final boolean terminal;
  private long roundStartBytes;
  private long roundStartNanos;
  private boolean open;

  ProgressLine(PrintStream out, boolean terminal) {
    this.out = out;
    this.terminal = terminal;
  }

  @Override
  public void accept(Progress progress) {
    switch (progress.phase()) {
      case HARVESTED -> {
        roundStartBytes = progress.bytesSent();
        roundStartNanos = progress.elapsedNanos();
      }
      case SENDING -> {
        if (terminal) {
          out.print("\r" + text(progress) + "\033[K");
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
}
