package dev.tidemark.bench.duel;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;

/** Processes that do nothing but use the processors; they end when this is closed. */
final class Busy implements AutoCloseable {
  private final List<Process> processes = new ArrayList<>();
  private final Thread end = new Thread(this::kill, "end of spinning");

  /** Starts so many. */
  Busy(int count) {
    Runtime.getRuntime().addShutdownHook(end);
    try {
      for (int i = 0; i < count; i++) {
        processes.add(new ProcessBuilder("sh", "-c", "while :; do :; done").start());
      }
    } catch (IOException e) {
      close();
      throw new UncheckedIOException(e);
    }
  }

  /** How many still spin. */
  long running() {
    return processes.stream().filter(Process::isAlive).count();
  }

  private void kill() {
    processes.forEach(Process::destroyForcibly);
  }

  @Override
  public void close() {
    kill();
    processes.forEach(process -> process.onExit().join());
    try {
      Runtime.getRuntime().removeShutdownHook(end);
    } catch (IllegalStateException e) {
      // This JVM ends.
    }
  }
}
