// The film as it comes from Python: the first moment in full, of each later one the tiles that are different.

const inflated = async (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const bytesOf = (view) => new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);

// frames[i].tiles[k] is [cells, orders] of piece k at moment i. Moments share what is the same in them, so two moments
// differ in just those pieces whose entries are not the same object.
class Film {
  static async from(about, data) {
    const bytes = bytesOf(data);
    return new Film(about, about.zlib ? await inflated(bytes) : bytes);
  }

  constructor(about, bytes) {
    this.version = about.version;
    this.pieces = about.pieces;
    const { frames, layouts } = JSON.parse(new TextDecoder().decode(bytes.subarray(about.text)));
    this.layouts = layouts;
    const total = this.pieces.reduce((sum, [, pages]) => sum + pages, 0);
    let tiles = this.pieces.map(([at, pages]) => [
      bytes.subarray(at, at + pages),
      bytes.subarray(total + at, total + at + pages),
    ]);
    let [at, info] = [2 * total, {}];
    this.frames = frames.map((frame, i) => {
      if (i) tiles = tiles.slice();
      for (const k of frame.tiles) {
        const pages = this.pieces[k][1];
        tiles[k] = [bytes.subarray(at, at + pages), bytes.subarray(at + pages, at + 2 * pages)];
        at += 2 * pages;
      }
      info = { ...info, ...frame.info };
      return { tiles, info };
    });
  }
}
