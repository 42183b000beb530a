package dev.tidemark.bench.fuzz;

import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.LinkedBlockingQueue;

/** Connections that give some bytes and then end; whatever is answered is read and forgotten. */
final class Pipes {
  /** What a Unix socket takes without a reader. */
  static final int MAX_BYTES = 96 << 10;

  private static final Socket LISTENER;
  private static final Path PATH;
  private static final IoVectors VECTORS = new IoVectors(Arena.global(), 1);
  private static final MemorySegment BYTES = Arena.global().allocate(MAX_BYTES);
  private static final LinkedBlockingQueue<Socket> ANSWERED = new LinkedBlockingQueue<>();

  static {
    try {
      Path folder = Files.createTempDirectory("tidemark-fuzz");
      PATH = folder.resolve("socket");
      LISTENER = Socket.listen(PATH);
      PATH.toFile().deleteOnExit();
      folder.toFile().deleteOnExit();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    Thread.ofPlatform().daemon().name("answers").start(Pipes::drain);
  }

  private Pipes() {}

  /** A connection whose end gives these bytes. */
  static Socket giving(byte[] data, int from) {
    Socket near = Socket.connect(PATH);
    int length = data.length - from;
    if (length > 0) {
      MemorySegment.copy(data, from, BYTES, ValueLayout.JAVA_BYTE, 0, length);
      VECTORS.clear();
      VECTORS.add(BYTES, 0, length);
      near.writeFully(VECTORS);
    }
    near.shutdownOutput();
    Socket far = LISTENER.accept();
    ANSWERED.add(near);
    return far;
  }

  private static void drain() {
    MemorySegment buffer = Arena.global().allocate(64 << 10);
    while (true) {
      try (Socket near = ANSWERED.take()) {
        while (near.read(buffer, buffer.byteSize()) > 0) {
          // Answers of the reader's.
        }
      } catch (LinuxException e) {
        // Closed with bytes unread.
      } catch (InterruptedException e) {
        return;
      }
    }
  }
}
