package dev.tidemark.bench.fuzz;

import dev.tidemark.engine.stream.ReturnPath;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.Socket;

/** Answers to a source that waits for three PONGs and a SHUT. */
public final class ReturnPathTarget {
  private ReturnPathTarget() {}

  /** Called by Jazzer. */
  public static void fuzzerTestOneInput(byte[] data) {
    if (data.length <= 4096) {
      Watched.run(data.length, () -> await(data));
    }
  }

  private static void await(byte[] data) {
    try (Socket socket = Pipes.giving(data, 0)) {
      ReturnPath answers = new ReturnPath(socket);
      for (int id = 0; id < 3; id++) {
        answers.awaitPong(id, 10_000);
      }
      answers.awaitShut(10_000);
    } catch (StreamException e) {
      Watched.checkMessage(e);
    }
  }
}
