package dev.tidemark.bench.guest;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/** The VMM's thread that writes the mailbox, a message each millisecond while it is on. */
final class MailboxWriter implements AutoCloseable {
  private static final long PERIOD = TimeUnit.MILLISECONDS.toNanos(1);

  private final MemorySegment ram;
  private final Thread thread;
  private volatile PageMarker marker;
  private volatile boolean closed;

  /** Guarded by this, as a whole message with its reports is. */
  private boolean on;

  private long next = Mailbox.PAGES;

  MailboxWriter(MemorySegment ram) {
    this.ram = ram;
    this.thread = Thread.ofPlatform().daemon().name("guest mailbox").start(this::writeMessages);
  }

  void setMarker(PageMarker marker) {
    this.marker = marker;
  }

  /** Reports a write; after it. */
  void mark(long firstPage, long pages) {
    PageMarker now = marker;
    if (now != null) {
      now.written(firstPage, pages);
    }
  }

  private void writeMessages() {
    while (!closed) {
      LockSupport.parkNanos(PERIOD);
      writeMessage();
    }
  }

  private synchronized void writeMessage() {
    if (!on) {
      return;
    }
    Mailbox.writeMessage(ram, next);
    mark(Mailbox.blockPage(next), 1);
    Mailbox.writeHead(ram, next);
    mark(Mailbox.blockHeadPage(), 1);
    next++;
  }

  /** Switches on or off; when off, no message is half written or unreported any more. */
  synchronized void set(boolean on) {
    this.on = on;
  }

  synchronized long next() {
    return next;
  }

  synchronized void setNext(long next) {
    this.next = next;
  }

  @Override
  public void close() {
    set(false);
    closed = true;
    LockSupport.unpark(thread);
    Joins.uninterruptibly(thread);
  }
}
